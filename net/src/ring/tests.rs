use super::*;

fn said(errno: i32) -> String {
    RingError::from_io(io::Error::from_raw_os_error(errno), "an io_uring").to_string()
}

#[test]
fn a_missing_ring_is_one_sentence_that_says_what_to_do() {
    assert!(said(libc::ENOSYS).contains("needs Linux 6.1 or later"));
    assert!(said(libc::EINVAL).contains("an io_uring (errno 22)"));
    assert!(said(libc::ENOMEM).starts_with("an io_uring failed: "));
    let sysctl = RingError::Forbidden { sysctl: Some(2) }.to_string();
    assert!(sysctl.contains("kernel.io_uring_disabled = 2"), "{sysctl}");
    // The sysctl allows it, so it is the container.
    for value in [None, Some(0)] {
        let seccomp = RingError::Forbidden { sysctl: value }.to_string();
        assert!(seccomp.contains("seccomp"), "{seccomp}");
    }
}

#[test]
fn an_idle_ring_is_polled_without_a_system_call_and_waits_no_longer_than_told() {
    let mut ring = Ring::new().unwrap();
    let mut taken = Vec::new();
    ring.peek().unwrap();
    ring.submit().unwrap();
    ring.take(8, &mut taken);
    assert_eq!((ring.enters(), taken.len()), (0, 0));
    let start = std::time::Instant::now();
    ring.wait(1, 2_000_000).unwrap();
    assert!(start.elapsed() >= std::time::Duration::from_millis(2));
    assert_eq!(ring.enters(), 1);
}

#[test]
fn more_than_the_queue_holds_is_submitted_in_between_and_all_of_it_completes() {
    let mut ring = Ring::new().unwrap();
    let all = SQ_ENTRIES as usize * 6;
    for n in 0..all {
        let entry = io_uring::opcode::Nop::new().build().user_data(n as u64);
        // SAFETY: nothing is pointed to.
        unsafe { ring.push(&entry).unwrap() };
    }
    // Past the completion queue's size too: the kernel keeps what does not fit.
    ring.submit().unwrap();
    let mut taken = Vec::new();
    for _ in 0..all {
        ring.peek().unwrap();
        ring.take(256, &mut taken);
    }
    assert_eq!(taken.len(), all);
}
