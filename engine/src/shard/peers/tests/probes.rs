//! Probes on the fake fabric: who answers, who does not, and who does again.

use std::net::SocketAddr;

use firebrick_net::fake::{Fake, Settings, World};
use firebrick_net::{Ep, Event, Fabric, Token};

use super::super::probes::Probes;

const MS: u64 = 1_000_000;
const BRICK: u32 = 7;

struct Scene {
    now: u64,
    world: World,
    here: Fake,
    there: Fake,
    address: SocketAddr,
    probes: Probes,
    /// The other brick answers.
    answers: bool,
    asked: usize,
    /// Since when answers had been missing, whenever one came.
    heard: Vec<u64>,
}

impl Scene {
    fn new() -> Self {
        let world = World::new(1, Settings::default());
        let address = SocketAddr::from(([127, 0, 0, 1], 7400));
        let (mut here, mut there) = (world.fake(), world.fake());
        there.listen(address);
        let mut probes = Probes::default();
        probes.set(&mut here, BRICK, Some(address), true);
        let (asked, heard, now) = (0, Vec::new(), 1_000 * MS);
        Self { now, world, here, there, address, probes, answers: true, asked, heard }
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now += MS;
            self.serve();
            for (event, ep) in events(&mut self.here, self.now) {
                match event {
                    Happened::Opened => assert!(self.probes.on_opened(ep)),
                    Happened::Closed => drop(self.probes.on_closed(ep)),
                    Happened::Frame => {
                        let heard = self.probes.on_answer(ep);
                        self.heard.extend(heard.map(|(_, since)| since));
                    }
                }
            }
            self.probes.poll(&mut self.here, self.now, b"hello");
            self.here.flush().unwrap();
        }
    }

    fn serve(&mut self) {
        for (event, ep) in events(&mut self.there, self.now) {
            if let Happened::Frame = event {
                self.asked += 1;
                if self.answers {
                    self.there.send(ep, b"welcome", None, Token::NONE).unwrap();
                }
            }
        }
        self.there.flush().unwrap();
    }

    fn late(&self) -> Vec<u32> {
        self.probes.late().collect()
    }
}

enum Happened {
    Opened,
    Closed,
    Frame,
}

fn events(fake: &mut Fake, now: u64) -> Vec<(Happened, Ep)> {
    let mut events = Vec::new();
    fake.poll(now, &mut events);
    let one = |event| match event {
        Event::Opened { ep, .. } => Some((Happened::Opened, ep)),
        Event::Closed { ep, .. } => Some((Happened::Closed, ep)),
        Event::Frame { ep, rx } => {
            fake.release(rx);
            Some((Happened::Frame, ep))
        }
        _ => None,
    };
    events.into_iter().filter_map(one).collect()
}

#[test]
fn a_brick_that_gives_no_answer_cannot_be_reached_until_it_does() {
    let mut scene = Scene::new();
    scene.run(2_000);
    assert!(scene.late().is_empty());
    assert!((15..=21).contains(&scene.asked), "asked {} times in 2 s", scene.asked);
    scene.answers = false;
    scene.run(100);
    assert!(scene.late().is_empty(), "one answer may be late");
    scene.run(300);
    assert_eq!(scene.late(), [BRICK]);
    let (asked, silent_at) = (scene.asked, scene.now - 400 * MS);
    scene.run(3_000);
    assert!(scene.asked > asked + 3, "connections without an answer are replaced and asked on");
    scene.heard.clear();
    scene.answers = true;
    scene.run(700);
    assert!(scene.late().is_empty());
    let since = scene.heard[0];
    assert!(since > silent_at - 200 * MS && since < silent_at + 200 * MS, "{since}");
}

#[test]
fn a_brick_that_cannot_be_dialled_cannot_be_reached() {
    let mut scene = Scene::new();
    scene.run(500);
    scene.world.part(&scene.here, &scene.there);
    scene.run(400);
    assert_eq!(scene.late(), [BRICK]);
    scene.world.join(&scene.here, &scene.there);
    // What was sent meanwhile arrives after as long again at the latest.
    scene.run(500);
    assert!(scene.late().is_empty());
}

#[test]
fn a_brick_that_shares_nothing_any_more_is_asked_until_it_answers_and_then_let_go() {
    let mut scene = Scene::new();
    scene.run(500);
    scene.answers = false;
    scene.run(500);
    scene.probes.set(&mut scene.here, BRICK, Some(scene.address), false);
    scene.run(2_000);
    assert_eq!(scene.late(), [BRICK], "it left the group and is still not reached");
    scene.answers = true;
    scene.run(700);
    assert!(scene.late().is_empty());
    let asked = scene.asked;
    scene.run(2_000);
    assert_eq!(scene.asked, asked, "nobody asks for what it could tell");
    scene.probes.set(&mut scene.here, BRICK, Some(scene.address), true);
    scene.run(500);
    assert!(scene.asked > asked);
    scene.answers = false;
    scene.run(500);
    scene.probes.set(&mut scene.here, BRICK, None, false);
    scene.run(500);
    assert!(scene.late().is_empty(), "a brick that was removed is nobody's");
}
