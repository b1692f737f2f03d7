//! The seven checks, a file each.

mod agreement;
mod calls;
mod endings;
mod outcomes;
mod progress;
mod rest;
mod timing;

use crate::verdict::Report;
use crate::world::World;

/// All of them, in their order.
pub(crate) const ALL: [fn(&World<'_>) -> Report; 7] = [
    endings::check,
    outcomes::check,
    calls::check,
    timing::check,
    rest::check,
    progress::check,
    agreement::check,
];
