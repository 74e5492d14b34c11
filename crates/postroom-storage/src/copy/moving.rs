//! Moves an organization of the embedded engine into a database of its own, with the same machinery: copied, compared, and
//! then, in one transaction, entered in the registry. What is left behind is deleted in steps after that.
//!
//! Until the registry has it, the new directory is nobody's: a move that is given up leaves the organization where it was,
//! and a server may be started in between. From then on every call goes there, and nothing that waits is left behind.

use std::path::Path;

use postroom_domain::keyring::Keyring;
use postroom_domain::{OrganizationId, TenantId, Timestamp};

use super::progress::{Finished, Progress, identity};
use super::side::{FINISHED, Meta, Side, UNFINISHED};
use super::view::View;
use super::{Error, Job, Report, Role, Told, must_be_empty};
use crate::sqlite::copy::{Embedded, Found, Placed};

/// Moves an organization, by slug or id, into a database of its own below `data_dir`. One that has it already only loses
/// what an interrupted move left behind.
///
/// # Errors
/// Each says what to do.
pub async fn to_dedicated(
    data_dir: &Path,
    organization: &str,
    keyring: &Keyring,
    now: Timestamp,
    told: Told<'_>,
) -> Result<Report, Error> {
    let shared = Embedded::open(data_dir, Role::Shared)?;
    let Found { org, id, placed } = shared.find(organization).await?;
    let kept = shared.meta().await?;
    let identity = identity(&kept, keyring)?;
    let report = match placed {
        Placed::Begun => return Err(Error::BeingMade),
        Placed::Dedicated => {
            Report { was_finished: true, is_compared: false, tables: Vec::new(), differences: Vec::new() }
        }
        Placed::Shared => {
            // What has no known outcome becomes due here, as at a start, and is copied as that.
            shared.settle(now).await?;
            let url = format!("tenants/{}", TenantId::from_bytes(id.to_bytes()));
            let report = copied(&shared, &data_dir.join(&url), org, &Whole { identity, keyring, now }, told).await?;
            if report.differences.is_empty() {
                shared.enter(org, id, url).await?;
            }
            report
        }
    };
    if report.differences.is_empty() {
        shared.forget(org).await?;
    }
    Ok(report)
}

/// What is known of the installation.
struct Whole<'a> {
    identity: Vec<u8>,
    keyring: &'a Keyring,
    now: Timestamp,
}

/// Copies one organization into a directory that is nobody's yet.
async fn copied(shared: &Embedded, cell: &Path, org: i64, whole: &Whole<'_>, told: Told<'_>) -> Result<Report, Error> {
    let stamp = shared.stamp().await?;
    let mut target = Embedded::open(cell, Role::Target)?;
    let begun = match begun(&target.meta().await?, whole, &stamp) {
        None if matches!(must_be_empty(&target).await, Err(Error::NotEmpty { .. })) => {
            // An earlier move that was given up: the organization has gone on since.
            drop(target);
            Embedded::remove(cell)?;
            target = Embedded::open(cell, Role::Target)?;
            None
        }
        begun => begun,
    };
    let source = View { side: shared, org };
    let job = |due| Job { source: &source, target: &target, keyring: whole.keyring, due };
    match begun {
        Some(Begun::Finished(finished)) => job(finished.due()).compare(told).await,
        Some(Begun::Unfinished(progress)) => job(progress.due()).run(progress, told).await,
        None => {
            let progress = Progress::new(whole.identity.clone(), stamp, whole.now);
            let mut meta = source.meta().await?;
            meta.remove(FINISHED);
            meta.insert(UNFINISHED.to_owned(), progress.seal(whole.keyring));
            target.begin(meta).await?;
            job(progress.due()).run(progress, told).await
        }
    }
}

/// How far an earlier run has come.
enum Begun {
    Unfinished(Progress),
    Finished(Finished),
}

/// Of the installation as it is now, if there is one.
fn begun(found: &Meta, whole: &Whole<'_>, stamp: &str) -> Option<Begun> {
    if let Some(sealed) = found.get(FINISHED) {
        let finished = Finished::open(sealed, whole.keyring).ok()?;
        return finished.is_of(&whole.identity, stamp).ok().map(|()| Begun::Finished(finished));
    }
    let progress = Progress::open(found.get(UNFINISHED)?, whole.keyring).ok()?;
    progress.of(&whole.identity, stamp).ok().map(Begun::Unfinished)
}

/// An organization with a database of its own, or that is about to have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dedicated {
    /// Which organization.
    pub organization: OrganizationId,
    /// Its slug.
    pub slug: String,
    /// Where its database is: the directory below the data directory.
    pub url: String,
    /// Whether its making was finished.
    pub is_complete: bool,
}

/// The organizations of a data directory that have a database of their own.
///
/// # Errors
/// When there is no database, or it cannot be read.
pub async fn dedicated(data_dir: &Path) -> Result<Vec<Dedicated>, Error> {
    Embedded::list(data_dir).await
}
