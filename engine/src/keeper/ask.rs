//! Asking whoever leads the keepers: this brick's own keeper first, then where it points, then everybody known.
//!
//! Who leads may be out of this brick's reach alone. So when it did not answer, whoever is asked instead passes the
//! question on. That is safe for leases: they count from when the question was sent, and the leader answers after a
//! check that began when it came, with the maps as they are then, whichever way it came.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::net::{Answer, Ask, Lane, Links, Refusal, Why};
use super::node::Node;

/// Addresses that are remembered.
const PLACES_MAX: usize = 64;
/// Bricks that are asked for one answer, as long as they say at once that they do not lead. (Of a large cluster few are
/// keepers, and the others know nothing.)
const HOPS_MAX: usize = 8;

/// Where keepers may be. Clones share what they learn.
#[derive(Clone)]
pub(crate) struct Finder {
    links: Links,
    /// This brick's own keeper, once it runs.
    own: Option<Arc<Node>>,
    own_at: String,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    /// The best guess first.
    places: VecDeque<String>,
    /// Who did not answer as the leader when asked last. The own keeper may name it for ever: when it is a keeper no
    /// more, nobody tells it who leads.
    doubted: Option<String>,
}

impl Finder {
    pub(crate) fn new(links: Links, places: impl IntoIterator<Item = String>) -> Self {
        let finder = Self { links, own: None, own_at: String::new(), known: Arc::default() };
        finder.add(places);
        finder
    }

    /// From now on the own keeper, which is at this address, is asked first.
    pub(crate) fn set_own(&mut self, own: Arc<Node>, at: &str) {
        self.own = Some(own);
        at.clone_into(&mut self.own_at);
        self.known().places.retain(|place| place != at);
    }

    /// Remembers more places.
    pub(crate) fn add(&self, places: impl IntoIterator<Item = String>) {
        let mut known = self.known();
        for place in places {
            if !place.is_empty() && place != self.own_at && !known.places.contains(&place) {
                known.places.push_back(place);
            }
        }
        known.places.truncate(PLACES_MAX);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks once, following who points to the leader. `Err` says what went wrong, and whether it may have been done all the
    /// same; ask again later.
    pub(crate) async fn ask(&self, ask: &Ask, within: Duration) -> Result<Answer, Refusal> {
        let not_now = |text: String| Err(Refusal::new(Why::NotNow, text));
        let in_doubt = |text: String| Err(Refusal::new(Why::InDoubt, text));
        let doubted = self.known().doubted.clone();
        let mut next = match &self.own {
            Some(own) if own.leads() => {
                let answered =
                    tokio::time::timeout(within, own.ask_leader(true, ask.clone())).await;
                match answered {
                    Ok(Answer::NotLeader { leader }) => leader,
                    Ok(answer) => return Ok(answer),
                    Err(_) => return in_doubt("this brick's keeper gave no answer in time".into()),
                }
            }
            Some(own) => own.leader().filter(|(id, _)| *id != own.brick()).map(|(_, at)| at),
            None => None,
        };
        next.take_if(|at| Some(&*at) == doubted.as_ref());
        if let (None, Some(doubted), Ask::Heartbeat(_)) = (&next, &doubted, ask) {
            self.look_again(doubted, ask, within);
        }
        let mut said = "no keeper is known, and this brick's own does not lead".to_owned();
        for _ in 0..HOPS_MAX {
            let named = next.is_some();
            let Some(at) = next.take().or_else(|| self.known().places.front().cloned()) else {
                break;
            };
            // It passes the question on, unless it is asked as the one who leads.
            let leads = named || doubted.as_ref().is_none_or(|doubted| *doubted == at);
            let question = (leads, ask.clone());
            match self.links.ask(&at, 0, Lane::Asks, question, &[], within).await {
                Ok(Answer::NotLeader { leader: Some(leader) })
                    if leader != at && Some(&leader) != doubted.as_ref() =>
                {
                    next = Some(leader);
                }
                Ok(Answer::NotLeader { .. }) => {
                    self.distrust(&at, named);
                    said = format!("{at} knows no leader of the keepers");
                }
                Ok(answer) => {
                    self.trust(at);
                    return Ok(answer);
                }
                Err(error) => {
                    self.distrust(&at, leads);
                    return if error.sent { in_doubt(error.text) } else { not_now(error.text) };
                }
            }
        }
        not_now(said)
    }

    /// Asks the doubted one as well: when it answers, it is in reach again. When it does not, another one may lead by now.
    /// Of heartbeats, which may come twice.
    fn look_again(&self, at: &str, ask: &Ask, within: Duration) {
        let (finder, at, question) = (self.clone(), at.to_owned(), (true, ask.clone()));
        tokio::spawn(async move {
            let ask = async |at: &str| {
                finder.links.ask(at, 0, Lane::Asks, question.clone(), &[], within).await
            };
            let is_over = ask(&at).await.is_ok() || {
                let front = finder.known().places.front().cloned();
                match front.filter(|front| *front != at) {
                    Some(front) => match ask(&front).await {
                        Ok(Answer::NotLeader { leader }) => leader.is_some_and(|now| now != at),
                        answer => answer.is_ok(),
                    },
                    None => false,
                }
            };
            if is_over {
                finder.known().doubted.take_if(|doubted| *doubted == at);
            }
        });
    }

    /// Waits for so long, or until the own keeper leads.
    pub(crate) async fn await_own(&self, at_most: Duration) {
        match &self.own {
            Some(own) if !own.leads() => {
                let _ = tokio::time::timeout(at_most, own.until_leading()).await;
            }
            _ => tokio::time::sleep(at_most).await,
        }
    }

    fn trust(&self, at: String) {
        let mut known = self.known();
        known.doubted.take_if(|doubted| *doubted == at);
        if at != self.own_at && known.places.front() != Some(&at) {
            known.places.retain(|place| *place != at);
            known.places.push_front(at);
            known.places.truncate(PLACES_MAX);
        }
    }

    /// `led`: as far as anybody knew.
    fn distrust(&self, at: &str, led: bool) {
        let mut known = self.known();
        if led {
            known.doubted = Some(at.to_owned());
        }
        if known.places.front().is_some_and(|place| place == at) {
            known.places.rotate_left(1);
        }
    }
}
