//! RESP connections: bytes in, bytes out, and what the front asks of this core.

use std::fmt::Write as _;
use std::mem;

use firebrick_net::{Ep, Fabric, Rx};
use firebrick_partition::{Answer, Now, Op};

use super::Shard;
use super::asker::ConnId;
use super::conns::{Conns, Kind, OWED_BYTES_MAX, Resp};
use super::store::Store;
use crate::brick::Info;
use crate::resp::{Backend, Conn, Progress, ReplyToken};

/// Queued output at which a connection executes no further command.
const ROOM_BYTES: usize = firebrick_net::limits::OUT_BYTES_MAX;

/// What the front sees of the shard while it serves one connection.
struct Front<'a, F> {
    store: &'a mut Store,
    fabric: &'a F,
    conns: &'a Conns,
    info: &'a Info,
    ep: Ep,
    /// Writes of this connection are in flight.
    own: bool,
}

impl<F: Fabric> Backend for Front<'_, F> {
    fn now(&self) -> Now {
        self.store.now
    }

    fn is_serving(&self) -> bool {
        self.info.board.serving().is_ok()
    }

    #[inline]
    fn prefetch_bucket(&self, hash: u64) {
        if let Some(replica) = self.store.resp_holder(hash) {
            replica.prefetch_bucket(hash);
        }
    }

    #[inline]
    fn prefetch_record(&self, hash: u64) {
        if let Some(replica) = self.store.resp_holder(hash) {
            replica.prefetch_record(hash);
        }
    }

    #[inline]
    fn submit(
        &mut self,
        token: ReplyToken,
        hash: u64,
        key: &[u8],
        op: Op<'_>,
    ) -> Option<Answer<'_>> {
        let asker = (ConnId::new(self.ep), token.number());
        let answer = self.store.submit(asker, hash, key, op, self.own);
        // From here on this connection must see what it wrote.
        self.own |= answer.is_none();
        answer
    }

    fn partition_hashes(&self, out: &mut Vec<u64>) {
        let table = self.store.routes.table(self.store.resp_table);
        out.extend(table.iter().flat_map(|t| t.entries()).map(|e| u64::from(e.leaf.suffix)));
    }

    fn info(&mut self, section: &str, out: &mut String) {
        self.info.section(section, self.store.now, out);
    }

    fn config_get(&self, pattern: &[u8], out: &mut Vec<(String, String)>) {
        let matching =
            |(name, _): &&(String, String)| crate::resp::glob_matches(pattern, name.as_bytes());
        out.extend(self.info.settings.iter().filter(matching).cloned());
    }

    fn clients(&mut self, asking: u32, out: &mut String) {
        for (ep, kind) in self.conns.iter() {
            let Kind::Resp(Some(resp)) = kind else { continue };
            if resp.conn.slot() != asking {
                let (peer, local) = self.fabric.addresses(ep);
                resp.conn.describe(&peer, &local, self.store.now, out);
            }
        }
    }

    fn addresses(&self, _conn: u32) -> (String, String) {
        self.fabric.addresses(self.ep)
    }
}

impl<F: Fabric> Shard<F> {
    /// A RESP connection was accepted.
    pub(super) fn open_resp(&mut self, ep: Ep) {
        self.last_client += 1;
        let id = self.last_client << 8 | u64::from(self.store.core());
        let slot = ConnId::new(ep).bits();
        let conn = Conn::new(slot, id, self.store.now);
        let took_ns = self.store.now.boot_ns;
        let resp = Box::new(Resp {
            conn,
            queued: false,
            held: false,
            finished: false,
            bytes: 0,
            left: 0,
            shed: false,
            awaits: false,
            took_ns,
        });
        self.conns.insert(ep, Kind::Resp(Some(resp)));
    }

    /// Bytes arrived.
    pub(super) fn on_bytes(&mut self, ep: Ep, rx: Rx) {
        self.serve_resp(ep, Some(&rx));
        self.fabric.release(rx);
    }

    /// The client sends no more.
    pub(super) fn finish_resp(&mut self, ep: Ep) {
        let Some(mut resp) = self.conns.take_resp(ep) else { return };
        resp.finished = true;
        self.conns.put_resp(ep, resp);
        self.resume_resp(ep);
    }

    /// The connection goes on with what it kept.
    pub(super) fn resume_resp(&mut self, ep: Ep) {
        self.serve_resp(ep, None);
    }

    fn serve_resp(&mut self, ep: Ep, rx: Option<&Rx>) {
        let Some(mut resp) = self.conns.take_resp(ep) else { return };
        self.burden.note(&self.fabric, ep, &mut resp, self.store.now);
        let passes = self.burden.passes.take_if(|passes| *passes == ep).is_some();
        let room = if !passes && self.burden.bars(&resp) { 0 } else { ROOM_BYTES };
        let out = self.fabric.out(ep).map(mem::take);
        if let Some(mut out) = out {
            let mut front = Front {
                store: &mut self.store,
                fabric: &self.fabric,
                conns: &self.conns,
                info: &self.info,
                ep,
                own: resp.conn.outstanding() > 0,
            };
            let progress = if let Some(rx) = rx {
                let bytes = self.fabric.bytes(rx);
                resp.conn.on_bytes(bytes, room, &mut front, &mut out)
            } else {
                resp.queued = false;
                resp.conn.resume(room, &mut front, &mut out)
            };
            self.go_on(ep, &mut resp, out, progress);
            self.burden.note(&self.fabric, ep, &mut resp, self.store.now);
        }
        self.conns.put_resp(ep, resp);
    }

    /// An answer came for a reply that waits.
    pub(super) fn answer_resp(&mut self, conn: ConnId, part: u32, answer: Answer<'_>) {
        let Some(ep) = self.conns.find(conn) else { return };
        let Some(mut resp) = self.conns.take_resp(ep) else { return };
        if let Some(mut out) = self.fabric.out(ep).map(mem::take) {
            let token = ReplyToken::new(conn.bits(), part);
            let mut progress = resp.conn.on_answer(token, answer, self.store.now, &mut out);
            if out.len() + resp.conn.held_bytes() > OWED_BYTES_MAX {
                progress = Progress::Close;
            }
            self.go_on(ep, &mut resp, out, progress);
            self.burden.note(&self.fabric, ep, &mut resp, self.store.now);
        }
        self.conns.put_resp(ep, resp);
    }

    /// Queues what was written, and decides when the connection is served next.
    pub(super) fn go_on(&mut self, ep: Ep, resp: &mut Resp, out: Vec<u8>, progress: Progress) {
        if let Some(slot) = self.fabric.out(ep) {
            *slot = out;
        }
        let full = self.fabric.room(ep) == 0;
        // What is still kept then is a part of a command.
        let ends = resp.finished && progress == Progress::Ok && resp.conn.is_answered();
        let hold = match if ends { Progress::Close } else { progress } {
            Progress::Ok => false,
            Progress::Waiting => true,
            Progress::Again | Progress::Full => {
                // A full endpoint reports `Drained`; another goes on in the next turn.
                if !full && !mem::replace(&mut resp.queued, true) {
                    let list = if self.burden.bars(resp) {
                        &mut self.burden.barred
                    } else {
                        &mut self.resume
                    };
                    list.push(ep);
                }
                true
            }
            Progress::Close => {
                self.fabric.close(ep);
                true
            }
        };
        if hold != mem::replace(&mut resp.held, hold) {
            self.fabric.hold(ep, hold);
        }
    }
}

impl Info {
    /// Appends a section of INFO.
    fn section(&self, section: &str, now: Now, out: &mut String) {
        let all = matches!(section, "all" | "default" | "everything");
        for (name, write) in SECTIONS {
            if all || section.eq_ignore_ascii_case(name) {
                let _ = write!(out, "# {name}\r\n");
                write(self, now, out);
                out.push_str("\r\n");
            }
        }
    }
}

type Section = (&'static str, fn(&Info, Now, &mut String));

/// The sections, with the lines that client libraries and dashboards look for.
const SECTIONS: &[Section] = &[
    ("Server", |info, now, out| {
        let up = now.unix_ms.saturating_sub(info.board.started_unix_ms()) / 1000;
        let _ = write!(
            out,
            "redis_version:7.2.0\r\nredis_mode:standalone\r\nserver_name:firebrick\r\n\
             firebrick_version:{}\r\nbrick_name:{}\r\nos:Linux\r\narch_bits:64\r\n\
             process_id:{}\r\ntcp_port:{}\r\nuptime_in_seconds:{up}\r\nuptime_in_days:{}\r\n",
            env!("CARGO_PKG_VERSION"),
            info.name,
            std::process::id(),
            info.resp_port,
            up / 86_400,
        );
    }),
    ("Clients", |info, _, out| {
        let clients = info.total(|c| c.connections);
        let _ = write!(out, "connected_clients:{clients}\r\nblocked_clients:0\r\n");
    }),
    ("Memory", |info, _, out| {
        let used = info.total(|c| c.log_used_bytes + c.index_bytes);
        let _ = write!(
            out,
            "used_memory:{used}\r\nused_memory_dataset:{}\r\nmaxmemory:{}\r\n\
             maxmemory_policy:noeviction\r\n",
            info.total(|c| c.log_live_bytes),
            info.total(|c| c.log_capacity_bytes),
        );
    }),
    ("Persistence", |info, _, out| {
        let loading = u8::from(info.board.serving().is_err());
        let _ = write!(
            out,
            "loading:{loading}\r\nrdb_bgsave_in_progress:0\r\naof_enabled:1\r\n\
             flush_lag_bytes:{}\r\n",
            info.total(|c| c.flush_lag_bytes)
        );
    }),
    ("Stats", |info, _, out| {
        let _ = write!(
            out,
            "total_connections_received:{}\r\ntotal_commands_processed:{}\r\n\
             keyspace_hits:{}\r\nkeyspace_misses:{}\r\ntotal_net_input_bytes:{}\r\n\
             total_net_output_bytes:{}\r\nrejected_connections:{}\r\n",
            info.total(|c| c.accepted),
            info.total(|c| c.gets + c.puts + c.removes + c.others),
            info.total(|c| c.hits),
            info.total(|c| c.misses),
            info.total(|c| c.bytes_in),
            info.total(|c| c.bytes_out),
            info.total(|c| c.connections_refused),
        );
    }),
    ("Replication", |_, _, out| {
        out.push_str("role:master\r\nconnected_slaves:0\r\nmaster_repl_offset:0\r\n");
    }),
    ("Keyspace", |info, _, out| {
        let items = info.total(|c| c.items);
        if items > 0 {
            let _ = write!(out, "db0:keys={items},expires=0,avg_ttl=0\r\n");
        }
    }),
];
