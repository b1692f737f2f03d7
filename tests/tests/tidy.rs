//! The rules of the house, each as a test that fails when it is broken. What a lint can check is
//! left to the lints; this reads the sources themselves.

mod tidy {
    pub(crate) mod crates;
    pub(crate) mod layers;
    pub(crate) mod manners;
    pub(crate) mod names;
    pub(crate) mod sizes;
    pub(crate) mod source;
}
