//! The five traits, each call sent to where its organization's data is.

mod api;
mod authorizer;
mod platform;
mod receiver;
mod worker;
