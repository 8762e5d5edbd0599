//! Asking whoever leads the keepers: this brick's own keeper first, then where it points, then everybody known.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::net::{Answer, Ask, Lane, Links, Refusal, Why};
use super::node::Node;

/// Addresses that are remembered.
const PLACES_MAX: usize = 64;
/// An answer points elsewhere at most so often before somebody else is asked.
const HOPS_MAX: usize = 3;

/// Where keepers may be; the best guess first.
#[derive(Clone)]
pub(crate) struct Finder {
    links: Links,
    /// This brick's own keeper, once it runs.
    own: Option<Arc<Node>>,
    places: VecDeque<String>,
    /// Who did not answer as the leader when asked last. The own keeper may name it for ever: when it is a keeper no
    /// more, nobody tells it who leads.
    doubted: Option<String>,
}

impl Finder {
    pub(crate) fn new(links: Links, places: impl IntoIterator<Item = String>) -> Self {
        let places = places.into_iter().take(PLACES_MAX).collect();
        Self { links, own: None, places, doubted: None }
    }

    /// From now on the own keeper is asked first.
    pub(crate) fn set_own(&mut self, own: Arc<Node>) {
        self.own = Some(own);
    }

    /// Remembers more places.
    pub(crate) fn add(&mut self, places: impl IntoIterator<Item = String>) {
        for place in places {
            if !place.is_empty() && !self.places.contains(&place) {
                self.places.push_back(place);
            }
        }
        self.places.truncate(PLACES_MAX);
    }

    /// Asks once, following who points to the leader. `Err` says what went wrong, and whether it may have been done all the
    /// same; ask again later.
    pub(crate) async fn ask(&mut self, ask: &Ask, within: Duration) -> Result<Answer, Refusal> {
        let not_now = |text: String| Err(Refusal::new(Why::NotNow, text));
        let in_doubt = |text: String| Err(Refusal::new(Why::InDoubt, text));
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
            Some(own) => {
                let told = own.leader().filter(|(id, _)| *id != own.brick());
                told.map(|(_, at)| at).filter(|at| Some(at) != self.doubted.as_ref())
            }
            None => None,
        };
        for _ in 0..HOPS_MAX {
            let Some(at) = next.take().or_else(|| self.places.front().cloned()) else {
                return not_now("no keeper is known, and this brick's own does not lead".into());
            };
            let asked = self.links.ask(&at, 0, Lane::Asks, (true, ask.clone()), &[], within).await;
            match asked {
                Ok(Answer::NotLeader { leader: Some(leader) }) if leader != at => {
                    next = Some(leader);
                }
                Ok(Answer::NotLeader { .. }) => {
                    self.distrust(&at);
                    return not_now(format!("{at} knows no leader of the keepers"));
                }
                Ok(answer) => {
                    self.trust(at);
                    return Ok(answer);
                }
                Err(error) => {
                    self.distrust(&at);
                    return if error.sent { in_doubt(error.text) } else { not_now(error.text) };
                }
            }
        }
        self.places.rotate_left(1);
        not_now("each keeper points to another one as the leader".into())
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

    fn trust(&mut self, at: String) {
        self.doubted.take_if(|doubted| *doubted == at);
        if self.places.front() != Some(&at) {
            self.places.retain(|place| *place != at);
            self.places.push_front(at);
            self.places.truncate(PLACES_MAX);
        }
    }

    fn distrust(&mut self, at: &str) {
        self.doubted = Some(at.to_owned());
        if self.places.front().is_some_and(|place| place == at) {
            self.places.rotate_left(1);
        }
    }
}
