//! The tables of a lone brick, from the keepers' own state machine without its log: entries are applied at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use firebrick_partition::keeper::{
    Applied, DEFAULT_TABLE, Entry, Keepers, Leases, Proof, Registration, create_table,
    partitions_for,
};
use firebrick_partition::maps::{Maps, Routes, TableOptions};

use firebrick_partition::maps::Durability;

pub const BRICK: u32 = 1;

pub struct Catalog {
    path: PathBuf,
    keepers: Keepers,
    cores: u16,
    incarnation: u64,
}

impl Catalog {
    /// A start of the brick: what was there, in a new epoch, and the default table.
    pub fn open(
        data: &Path,
        cores: u16,
        per_core: u32,
        durability: Durability,
    ) -> Result<Self, String> {
        let path = data.join("keepers.json");
        let keepers: Keepers = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
            Err(_) => Keepers::default(),
        };
        let replaces = keepers.brick(BRICK).map(|brick| brick.incarnation);
        let incarnation = replaces.unwrap_or(0) + 1;
        let registration = Registration {
            identity: 5,
            name: "test".into(),
            incarnation,
            cores,
            memory_intact: true,
            disk_intact: true,
            ..Registration::default()
        };
        let proof = if replaces.is_some() { Proof::OwnKeeper } else { Proof::First };
        let mut catalog = Self { path, keepers, cores, incarnation };
        catalog.apply(&Entry::Register { registration: registration.into(), replaces, proof })?;
        catalog.activate()?;
        if catalog.keepers.table_named(DEFAULT_TABLE).is_none() {
            catalog.create(DEFAULT_TABLE, per_core, durability)?;
        }
        Ok(catalog)
    }

    pub fn routes(&self) -> Arc<Routes> {
        Arc::new(Routes::new(&self.maps(), BRICK).unwrap())
    }

    pub fn maps(&self) -> Maps {
        self.keepers.maps()
    }

    /// A table that serves as soon as its replicas are ready.
    pub fn create(
        &mut self,
        name: &str,
        per_core: u32,
        durability: Durability,
    ) -> Result<(), String> {
        self.begin(name, per_core, durability)?;
        self.activate()
    }

    /// A table whose replicas the keepers have not heard of yet.
    pub fn begin(
        &mut self,
        name: &str,
        per_core: u32,
        durability: Durability,
    ) -> Result<(), String> {
        let partitions = partitions_for(u32::from(self.cores), per_core);
        let options = TableOptions { durability, partitions, replicas: 1 };
        let entry = create_table(0, &self.keepers, &Leases::default(), name, options)?;
        self.apply(&entry)
    }

    pub fn drop_table(&mut self, name: &str) -> Result<(), String> {
        self.apply(&Entry::DropTable { name: name.into() })
    }

    /// What the brick would report as soon as its replicas are ready.
    fn activate(&mut self) -> Result<(), String> {
        let begins = self.keepers.groups().filter(|(_, group)| !group.replicas.is_active());
        let groups: Vec<_> = begins.map(|(id, group)| (id, group.replicas.epoch)).collect();
        if groups.is_empty() {
            return Ok(());
        }
        let incarnation = self.incarnation;
        self.apply(&Entry::Active { brick: BRICK, incarnation, groups })
    }

    fn apply(&mut self, entry: &Entry) -> Result<(), String> {
        let applied = self.keepers.apply(entry);
        self.keepers.check()?;
        std::fs::write(&self.path, serde_json::to_vec(&self.keepers).unwrap()).unwrap();
        match applied {
            Applied::Nothing(why) => Err(why),
            _ => Ok(()),
        }
    }
}
