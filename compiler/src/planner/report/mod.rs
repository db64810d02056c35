//! What `bcc plan` shows: tables for terminals, CSV, and one page with the plan's shapes.
//!
//! Everything is a function of the summary alone, byte for byte: no clock, no hash order, no fonts
//! or scripts from elsewhere. Charts are written here rather than by a plotting crate: points need
//! hover titles, colours have to follow the reader's light or dark background, and labels must need
//! no font at the time of writing.

mod bars;
mod chart;
mod csv;
mod heat;
mod page;
mod scale;
mod table;
#[cfg(test)]
pub(crate) mod testing;
mod text;

pub use chart::curve;
pub use csv::csv;
pub use page::page;
pub use table::{sweep_table, table};
