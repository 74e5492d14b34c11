//! The tour, as README's first command runs it.

use super::support::{postroom, stderr, stdout};

#[test]
fn demo_exit_delivers_everything_and_ends_with_a_summary() {
    let temporary = tempfile::tempdir().unwrap();
    let output = postroom().args(["demo", "--exit"]).env("TMPDIR", temporary.path()).output().unwrap();
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{said}{}", stderr(&output));
    let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(last["lost"], 0);
    assert_eq!(last["accepted"], last["delivered"]);
    assert!(last["accepted"].as_u64().unwrap() >= 15, "{last}");
    assert!(last["retried"].as_u64().unwrap() >= 3, "{last}");
    for one in ["dead_letters", "requeued", "duplicates", "rejected", "handshakes"] {
        assert_eq!(last[one], 1, "{one}: {last}");
    }
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "nothing is left behind");
}
