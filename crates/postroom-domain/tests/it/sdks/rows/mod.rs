//! The providers, in the groups of the catalogue. What stands here was read in the providers' documents and libraries, not in
//! the catalogue.

pub mod commerce;
pub mod keys;
pub mod people;
pub mod standard;
pub mod tokens;
pub mod work;
