//! The kit itself: what it promises to the tests that stand on it.

mod postgres;
