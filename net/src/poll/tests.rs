use super::*;

const BUSY_LOAD: Load = Load { sends: 5, answers: 5, large: false };
const IDLE: Load = Load { sends: 0, answers: 0, large: false };
const TIMER: u64 = 10_000_000;

#[test]
fn a_busy_core_never_blocks() {
    let mut poller = Poller::new(Mode::Busy);
    assert_eq!(poller.after(1 << 40, 0, IDLE, TIMER), Next::Flush);
}

#[test]
fn an_adaptive_core_spins_after_work_and_then_blocks_until_its_timer() {
    let mut poller = Poller::new(Mode::Adaptive { spin_us: 50 });
    assert_eq!(poller.after(1_000_000, 3, BUSY_LOAD, TIMER), Next::Flush);
    assert_eq!(poller.after(1_049_000, 0, IDLE, TIMER), Next::Flush);
    let blocked = Next::Wait { want: 1, timeout_ns: TIMER };
    assert_eq!(poller.after(1_051_000, 0, IDLE, TIMER), blocked);
    assert_eq!(poller.after(1_052_000, 0, IDLE, 0), Next::Flush, "work is left");
}

#[test]
fn a_parked_core_waits_for_several_under_load_but_not_long() {
    let mut poller = Poller::new(Mode::Park);
    let batch = Next::Wait { want: 5 + 5, timeout_ns: BATCH_WAIT_NS };
    assert_eq!(poller.after(0, 9, BUSY_LOAD, TIMER), batch);
    let most = Load { sends: 1000, answers: 1000, large: false };
    assert_eq!(
        poller.after(0, 9, most, TIMER),
        Next::Wait { want: 1000 + 16, timeout_ns: BATCH_WAIT_NS }
    );
}

#[test]
fn what_was_sent_to_one_is_waited_for_and_no_other() {
    let mut poller = Poller::new(Mode::Park);
    let one = Load { sends: 1, answers: 1, large: false };
    assert_eq!(poller.after(0, 1, one, TIMER), Next::Wait { want: 2, timeout_ns: SENT_WAIT_NS });
    let large = Load { large: true, ..one };
    assert_eq!(poller.after(0, 1, large, TIMER), Next::Wait { want: 2, timeout_ns: BATCH_WAIT_NS });
    let quiet = Load { sends: 0, answers: 0, large: false };
    assert_eq!(poller.after(0, 0, quiet, TIMER), Next::Wait { want: 1, timeout_ns: TIMER });
}
