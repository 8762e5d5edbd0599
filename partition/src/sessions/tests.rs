use super::*;

const SESSION: SessionId = SessionId { partition: 3, opened: 5 };

fn version(seq: u64) -> Version {
    Version { epoch: 1, seq }
}

fn id(number: u32) -> RequestId {
    RequestId { session: SESSION, number }
}

fn check(sessions: &mut Sessions, number: u32, answered_to: u32) -> Seen {
    sessions.check(&Numbered { id: id(number), answered_to }, 0)
}

/// With one session that is open.
fn opened() -> Sessions {
    let mut sessions = Sessions::default();
    sessions.open(SESSION, 0);
    sessions
}

fn done(seq: u64) -> Seen {
    Seen::Before { rests_on: seq, answer: Remembered::Done(version(seq)) }
}

#[test]
fn a_mark_above_the_request_itself_takes_nothing_away() {
    let mut sessions = opened();
    assert_eq!(check(&mut sessions, 5, 9), Seen::New);
    sessions.remember(id(5), 1, Remembered::Done(version(1)));
    assert_eq!(check(&mut sessions, 5, 9), done(1));
    assert_eq!(check(&mut sessions, 6, 9), Seen::New);
    assert_eq!(check(&mut sessions, 4, 9), Seen::InDoubt);
}

/// Another primary decides about its end, too.
#[test]
fn a_session_that_is_ending_takes_no_request_until_another_primary_decides() {
    let mut sessions = opened();
    sessions.set_ending(SESSION);
    assert_eq!(check(&mut sessions, 1, 0), Seen::InDoubt);
    sessions.forget_uncommitted(0);
    assert_eq!(check(&mut sessions, 1, 0), Seen::New);
}

#[test]
fn past_the_cap_only_a_session_that_was_idle_makes_room() {
    let mut sessions = Sessions::default();
    for at in 0..SESSIONS_MAX as u64 {
        assert_eq!(sessions.room(at), Ok(()));
        sessions.open(SessionId { partition: 3, opened: at }, at);
    }
    assert_eq!(sessions.room(IDLE_LEAST_NS - 1), Err(None));
    let oldest = SessionId { partition: 3, opened: 0 };
    assert_eq!(sessions.room(IDLE_LEAST_NS), Err(Some(oldest)));
    sessions.set_ending(oldest);
    assert_eq!(sessions.room(IDLE_LEAST_NS), Err(None));
}

/// Whoever was answered rests on what is committed. The rest is decided anew: a record may be gone, and a refusal is in none.
#[test]
fn another_primary_knows_what_committed_records_hold_and_no_more() {
    let mut sessions = opened();
    sessions.remember(id(1), 7, Remembered::Done(version(7)));
    sessions.remember(id(2), 8, Remembered::Done(version(8)));
    sessions.remember(id(3), 7, Remembered::Refused(version(7)));
    sessions.forget_uncommitted(7);
    assert_eq!(check(&mut sessions, 1, 0), done(7));
    assert_eq!(check(&mut sessions, 2, 0), Seen::New);
    assert_eq!(check(&mut sessions, 3, 0), Seen::New);
}

#[test]
fn what_is_not_committed_is_not_written_down() {
    let mut sessions = opened();
    sessions.remember(id(1), 7, Remembered::Done(version(7)));
    sessions.remember(id(2), 8, Remembered::Done(version(8)));
    let mut out = Vec::new();
    sessions.results(SESSION, 9, 7, &mut out);
    assert_eq!(out.iter().map(|line| line.number).collect::<Vec<_>>(), [0, 1]);
}

/// Records come in any order: an end is final, whatever of the session comes after it.
#[test]
fn an_ended_session_is_not_rebuilt() {
    for ends_first in [true, false] {
        let mut rebuild = Rebuild::default();
        if ends_first {
            rebuild.ended(SESSION);
        }
        rebuild.opened(3, version(5));
        rebuild.wrote(id(1), 6, Remembered::Done(version(6)));
        if !ends_first {
            rebuild.ended(SESSION);
        }
        let opened = SessionId::opened_by(3, version(5));
        rebuild.ended(opened);
        let sessions = rebuild.finish(0);
        assert!(!sessions.is_open(SESSION) && !sessions.is_open(opened));
    }
}

/// Its end may have been cleaned away together with what it ended.
#[test]
fn a_session_is_open_if_the_newest_list_has_it_or_it_was_opened_since() {
    let mut sessions = opened();
    assert_eq!(check(&mut sessions, 9, 4), Seen::New);
    let mut list = Vec::new();
    sessions.results(SESSION, 9, 7, &mut list);
    let mut rebuild = Rebuild::default();
    rebuild.opened(3, version(6));
    rebuild.opened(3, version(8));
    assert!(rebuild.listed(7, list.iter().copied()));
    rebuild.wrote(id(9), 8, Remembered::Done(version(8)));
    assert!(!rebuild.listed(6, std::iter::empty()), "an older one");
    let mut rebuilt = rebuild.finish(0);
    assert!(!rebuilt.is_open(SessionId::opened_by(3, version(6))));
    assert!(rebuilt.is_open(SessionId::opened_by(3, version(8))));
    // The mark is the list's.
    assert_eq!(check(&mut rebuilt, 4, 0), Seen::InDoubt);
    assert_eq!(check(&mut rebuilt, 5, 0), Seen::New);
    assert_eq!(check(&mut rebuilt, 9, 0), done(8));
}
