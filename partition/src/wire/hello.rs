//! The rare messages: who is who, maps, control.

use std::fmt;

use rkyv::rancor::Failure as Rejected;
use rkyv::with::InlineAsBox;
use rkyv::{Archive, Deserialize, Serialize};

use super::{Kind, Message, WireError, access, archive, prefix};
use crate::maps::MapDelta;

/// Feature of the `Hello` of a brick: messages between replicas, requests and answers may come on this connection
/// too, in the other direction.
pub const BOTH_WAYS: u64 = 1;

/// A client's first message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Name of the program, for `status`.
    pub client: &'a str,
    /// Features it can use: [`BOTH_WAYS`] or none.
    pub features: u64,
    /// The brick that dialled, and its incarnation; 0 and 0 for a client.
    pub brick: u32,
    /// See `brick`.
    pub incarnation: u64,
}

/// What a brick accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Limits {
    /// Longest key.
    pub key_bytes: u32,
    /// Longest value.
    pub value_bytes: u32,
    /// Requests in flight on one connection.
    pub in_flight: u32,
}

/// A brick's answer to `Hello`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome<'a> {
    /// The brick's name.
    pub name: &'a str,
    /// Brick id, as the maps name it.
    pub brick: u32,
    /// Differs in every process that ran as this brick.
    pub incarnation: u64,
    /// Data cores.
    pub cores: u16,
    /// The core this connection ended at.
    pub core: u16,
    /// Version of the maps.
    pub map_version: u64,
    /// Features it offers.
    pub features: u64,
    /// What it accepts.
    pub limits: Limits,
}

#[derive(Archive, Serialize)]
struct HelloRoot<'a> {
    features: u64,
    incarnation: u64,
    brick: u32,
    #[rkyv(with = InlineAsBox)]
    client: &'a str,
}

#[derive(Archive, Serialize)]
struct WelcomeRoot<'a> {
    incarnation: u64,
    map_version: u64,
    features: u64,
    limits: Limits,
    brick: u32,
    cores: u16,
    core: u16,
    #[rkyv(with = InlineAsBox)]
    name: &'a str,
}

#[derive(Archive, Serialize)]
struct Text<'a> {
    #[rkyv(with = InlineAsBox)]
    text: &'a str,
}

/// What an asker knows of the maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize)]
pub struct Known {
    /// Of this cluster's maps; 0: it knows none.
    pub cluster: u64,
    /// This version; 0: none.
    pub version: u64,
}

#[derive(Archive, Serialize, Deserialize)]
struct MapRoot {
    cluster: u64,
    changes: MapDelta,
}

/// Checked changes of the maps, not yet copied out of their frame.
#[derive(Clone, Copy)]
pub struct MapView<'a>(&'a ArchivedMapRoot);

impl MapView<'_> {
    /// Whose maps these are.
    pub fn cluster(&self) -> u64 {
        self.0.cluster.to_native()
    }

    /// An owned copy. Its tables are for [`crate::maps::TableMap::check`] to judge.
    pub fn to_changes(&self) -> Result<MapDelta, WireError> {
        rkyv::deserialize::<MapDelta, Rejected>(&self.0.changes)
            .map_err(|_| WireError::Archive(Kind::Map))
    }
}

impl fmt::Debug for MapView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MapView(version {})", self.0.changes.version)
    }
}

pub(super) fn encode_hello(out: &mut Vec<u8>, slot: u32, hello: &Hello<'_>) {
    prefix(out, Kind::Hello, 0, 0, slot);
    let Hello { client, features, brick, incarnation } = *hello;
    archive(&HelloRoot { features, incarnation, brick, client }, out);
}

pub(super) fn encode_welcome(out: &mut Vec<u8>, slot: u32, welcome: &Welcome<'_>) {
    prefix(out, Kind::Welcome, 0, 0, slot);
    let Welcome { name, brick, incarnation, cores, core, map_version, features, limits } = *welcome;
    let root = WelcomeRoot { incarnation, map_version, features, limits, brick, cores, core, name };
    archive(&root, out);
}

pub(super) fn encode_text(out: &mut Vec<u8>, kind: Kind, slot: u32, text: &str) {
    prefix(out, kind, 0, 0, slot);
    archive(&Text { text }, out);
}

pub(super) fn encode_fetch_map(out: &mut Vec<u8>, slot: u32, known: Known) {
    prefix(out, Kind::FetchMap, 0, 0, slot);
    archive(&known, out);
}

pub(super) fn encode_map(out: &mut Vec<u8>, slot: u32, cluster: u64, changes: MapDelta) {
    prefix(out, Kind::Map, 0, 0, slot);
    // Rare and nested: this one may allocate scratch space.
    let bytes = std::mem::take(out);
    let done = rkyv::api::high::to_bytes_in::<_, Rejected>(&MapRoot { cluster, changes }, bytes);
    let Ok(bytes) = done else { unreachable!("serialising into a Vec does not fail") };
    *out = bytes;
}

pub(super) fn decode(
    kind: Kind,
    code: u8,
    flags: u16,
    slot: u32,
    body: &[u8],
) -> Result<Message<'_>, WireError> {
    if code != 0 {
        return Err(WireError::Code(kind, code));
    }
    if flags != 0 {
        return Err(WireError::Flags(kind, flags));
    }
    Ok(match kind {
        Kind::Hello => {
            let root = access::<ArchivedHelloRoot>(kind, body)?;
            let hello = Hello {
                client: &root.client,
                features: root.features.to_native(),
                brick: root.brick.to_native(),
                incarnation: root.incarnation.to_native(),
            };
            Message::Hello { slot, hello }
        }
        Kind::Welcome => Message::Welcome { slot, welcome: welcome(kind, body)? },
        Kind::FetchMap => {
            let root = access::<ArchivedKnown>(kind, body)?;
            let (cluster, version) = (root.cluster.to_native(), root.version.to_native());
            Message::FetchMap { slot, known: Known { cluster, version } }
        }
        Kind::Control => Message::Control { slot, json: text(kind, body)? },
        Kind::ControlAnswer => Message::ControlAnswer { slot, json: text(kind, body)? },
        Kind::Map => {
            let maps = rkyv::access::<ArchivedMapRoot, Rejected>(body);
            Message::Map { slot, maps: MapView(maps.map_err(|_| WireError::Archive(kind))?) }
        }
        other => return Err(WireError::NotSpoken(other)),
    })
}

fn text(kind: Kind, body: &[u8]) -> Result<&str, WireError> {
    Ok(&access::<ArchivedText>(kind, body)?.text)
}

fn welcome(kind: Kind, body: &[u8]) -> Result<Welcome<'_>, WireError> {
    let root = access::<ArchivedWelcomeRoot>(kind, body)?;
    Ok(Welcome {
        name: &root.name,
        brick: root.brick.to_native(),
        incarnation: root.incarnation.to_native(),
        cores: root.cores.to_native(),
        core: root.core.to_native(),
        map_version: root.map_version.to_native(),
        features: root.features.to_native(),
        limits: Limits {
            key_bytes: root.limits.key_bytes.to_native(),
            value_bytes: root.limits.value_bytes.to_native(),
            in_flight: root.limits.in_flight.to_native(),
        },
    })
}
