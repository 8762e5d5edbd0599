//! `firebrick table`.

use clap::{Args, Subcommand};

use crate::args::Connect;

/// What to do with tables.
#[derive(Subcommand, Debug, Clone)]
pub enum TableCommand {
    /// Create a table.
    Create(CreateArgs),
    /// List the tables.
    List(ListArgs),
    /// Drop a table and everything in it.
    Drop(DropArgs),
}

/// Flags of `table create`.
#[derive(Args, Debug, Clone)]
pub struct CreateArgs {
    /// Its name.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Where.
    #[command(flatten)]
    pub connect: Connect,
}

/// Flags of `table list`.
#[derive(Args, Debug, Clone)]
pub struct ListArgs {
    /// Where.
    #[command(flatten)]
    pub connect: Connect,
}

/// Flags of `table drop`.
#[derive(Args, Debug, Clone)]
pub struct DropArgs {
    /// Its name.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Really: what was in the table cannot be brought back.
    #[arg(long)]
    pub yes: bool,
    /// Where.
    #[command(flatten)]
    pub connect: Connect,
}
