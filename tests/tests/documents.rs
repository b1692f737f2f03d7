//! The documents against the code: each table of `docs/` says what the programs do, no more and no
//! less, and each link leads somewhere.

#[cfg(test)]
mod documents {
    mod page;

    mod code_map;
    mod command_line;
    mod configuration;
    mod containers;
    mod delivery;
    mod http;
    mod links;
    mod metrics;
    mod readme;
    mod reliability;
    mod senders;
    mod topics;
}
