//! How a sender's own event ids are recognised.

use aws_lc_rs::digest;

/// What an external id is recognised by: 128 bits of the SHA-256 of whose it is and the id. Ids of sources and of the
/// organization itself never meet.
pub(crate) fn guard_hash(owner: (u8, i64), external_id: &str) -> [u8; 16] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&[owner.0]);
    context.update(&owner.1.to_be_bytes());
    context.update(external_id.as_bytes());
    let digest = context.finish();
    let mut hash = [0; 16];
    hash.copy_from_slice(&digest.as_ref()[..16]);
    hash
}
