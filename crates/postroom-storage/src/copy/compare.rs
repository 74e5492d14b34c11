//! Whether both sides hold the same: each table is read to its end on both, and added up by organization.

use std::collections::BTreeMap;

use postroom_domain::{OrganizationId, Timestamp};

use super::side::{FINISHED, Side, UNFINISHED};
use super::table::{Digest, TABLES, Table, Value};
use super::{Doing, Error, Job, Report, Step, Told};

/// A table of an organization that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its name on PostgreSQL.
    pub table: &'static str,
    /// The organization's id; the installation itself has none.
    pub organization: Option<OrganizationId>,
    /// Rows in the source.
    pub source_rows: u64,
    /// Rows in the target. If they are as many, their contents differ.
    pub target_rows: u64,
}

/// What a table is, organization by organization.
type Digests = BTreeMap<i64, Digest>;

impl Job<'_> {
    /// Reads both sides and compares.
    pub(super) async fn compare(&self, told: Told<'_>) -> Result<Report, Error> {
        let mut report = Report { was_finished: false, is_compared: true, tables: Vec::new(), differences: Vec::new() };
        let (mut names, mut others) = (BTreeMap::new(), BTreeMap::new());
        for table in &TABLES {
            let of = self.source.count(table).await?;
            told(Step { doing: Doing::Comparing, table: table.name, rows: 0, of });
            let (source, target) = tokio::try_join!(
                digests(self.source, table, self.due, &mut names),
                digests(self.target, table, self.due, &mut others),
            )?;
            let rows = source.values().map(|digest| digest.rows).sum();
            told(Step { doing: Doing::Comparing, table: table.name, rows, of: rows });
            report.tables.push((table.name, rows));
            let differences = differences(&source, &target).map(|(org, source_rows, target_rows)| Difference {
                table: table.name,
                organization: names.get(&org).copied(),
                source_rows,
                target_rows,
            });
            report.differences.extend(differences);
        }
        report.differences.extend(self.meta().await?);
        Ok(report)
    }

    /// What the installation keeps for itself, without what a copy adds.
    async fn meta(&self) -> Result<Option<Difference>, Error> {
        let (mut source, mut target) = tokio::try_join!(self.source.meta(), self.target.meta())?;
        for meta in [&mut source, &mut target] {
            meta.retain(|name, _| name != UNFINISHED && name != FINISHED);
        }
        let (source_rows, target_rows) = (source.len() as u64, target.len() as u64);
        let difference = Difference { table: "meta", organization: None, source_rows, target_rows };
        Ok((source != target).then_some(difference))
    }
}

/// Adds a table up. `names` learns the ids of organizations, whose table is the first one.
async fn digests(
    side: &dyn Side,
    table: &'static Table,
    due: Timestamp,
    names: &mut BTreeMap<i64, OrganizationId>,
) -> Result<Digests, Error> {
    let mut digests = Digests::new();
    let is_of_organizations = table.name == TABLES[0].name;
    let mut batches = side.read(table, None, None, due);
    while let Some(batch) = batches.next().await? {
        for row in batch.rows {
            let org = row.first().and_then(Value::integer).unwrap_or(0);
            digests.entry(org).or_default().add(&row);
            let id = row.get(1).filter(|_| is_of_organizations).and_then(Value::as_bytes);
            if let Some(id) = id.and_then(|id| id.try_into().ok()) {
                names.insert(org, OrganizationId::from_bytes(id));
            }
        }
    }
    Ok(digests)
}

/// The organizations that are not the same, with how many rows they have on each side.
fn differences<'a>(source: &'a Digests, target: &'a Digests) -> impl Iterator<Item = (i64, u64, u64)> + 'a {
    let only_there = target.keys().filter(|org| !source.contains_key(org));
    source.keys().chain(only_there).filter(|org| source.get(org) != target.get(org)).map(|org| {
        let rows = |digests: &Digests| digests.get(org).map_or(0, |digest| digest.rows);
        (*org, rows(source), rows(target))
    })
}
