//! A condition on an event's payload, written as JSON.
//!
//! ```json
//! {"data.order.total": {"$gte": 100}, "$or": [{"data.currency": "EUR"}, {"data.currency": {"$in": ["CHF", "GBP"]}}]}
//! ```
//!
//! An object of conditions that must all hold. A key is a path of names between dots (a number picks an element of an
//! array), or `$and`, `$or` (a list of such objects), `$not` (one such object). A condition is a value to be equal to, or
//! an object of operators: `$eq $ne $gt $gte $lt $lte $in $nin $exists $starts_with $contains`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use crate::Invalid;

/// A checked filter. At most 8 KiB as JSON, 100 conditions, nested 5 deep: it runs once per event and endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct Filter {
    /// As its owner wrote it.
    source: Value,
    all: Vec<Condition>,
}

const MAX_BYTES: usize = 8 * 1024;
const MAX_CONDITIONS: usize = 100;
const MAX_DEPTH: usize = 5;

#[derive(Debug, Clone, PartialEq)]
enum Condition {
    At { path: Vec<String>, test: Test },
    Every(Vec<Vec<Condition>>),
    Any(Vec<Vec<Condition>>),
    Not(Vec<Condition>),
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    Equal(Value),
    NotEqual(Value),
    Compare(Order, Operand),
    In(Vec<Value>),
    NotIn(Vec<Value>),
    Exists(bool),
    StartsWith(String),
    Contains(Value),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Order {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Number(f64),
    Text(String),
}

impl Filter {
    /// Accepts a filter as its owner wrote it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(source: Value) -> Result<Self, Invalid> {
        if source.to_string().len() > MAX_BYTES {
            return Err(Invalid::new("too_long", "a filter of at most 8 KiB"));
        }
        let mut budget = MAX_CONDITIONS;
        let all = conditions(&source, 0, &mut budget)?;
        Ok(Self { source, all })
    }

    /// Whether a payload meets every condition.
    #[must_use]
    pub fn matches(&self, payload: &Value) -> bool {
        all_hold(&self.all, payload)
    }
}

impl TryFrom<Value> for Filter {
    type Error = Invalid;
    fn try_from(source: Value) -> Result<Self, Invalid> {
        Self::parse(source)
    }
}

impl From<Filter> for Value {
    fn from(filter: Filter) -> Self {
        filter.source
    }
}

fn refused(detail: impl Into<String>) -> Invalid {
    Invalid::new("invalid_filter", detail)
}

fn conditions(value: &Value, depth: usize, budget: &mut usize) -> Result<Vec<Condition>, Invalid> {
    let Value::Object(map) = value else {
        return Err(refused("a filter is an object of paths and conditions"));
    };
    if map.is_empty() {
        return Err(refused("an empty filter says nothing; leave it out to receive every event"));
    }
    if depth >= MAX_DEPTH {
        return Err(refused("nested at most 5 deep"));
    }
    let mut all = Vec::new();
    for (key, value) in map {
        match key.as_str() {
            "$and" => all.push(Condition::Every(branches(key, value, depth, budget)?)),
            "$or" => all.push(Condition::Any(branches(key, value, depth, budget)?)),
            "$not" => all.push(Condition::Not(conditions(value, depth + 1, budget)?)),
            operator if operator.starts_with('$') => {
                return Err(refused(format!("{operator} can not stand here; $and, $or and $not can")));
            }
            path => at_path(path, value, budget, &mut all)?,
        }
    }
    Ok(all)
}

fn branches(key: &str, value: &Value, depth: usize, budget: &mut usize) -> Result<Vec<Vec<Condition>>, Invalid> {
    match value.as_array() {
        Some(list) if !list.is_empty() => list.iter().map(|item| conditions(item, depth + 1, budget)).collect(),
        _ => Err(refused(format!("{key} takes a list of one or more filters"))),
    }
}

fn at_path(path: &str, value: &Value, budget: &mut usize, all: &mut Vec<Condition>) -> Result<(), Invalid> {
    let words: Vec<String> = path.split('.').map(str::to_owned).collect();
    if words.iter().any(String::is_empty) {
        return Err(refused(format!("{path:?} is not a path of names between single dots")));
    }
    let tests = match value {
        Value::Object(operators) if operators.keys().any(|key| key.starts_with('$')) => operators
            .iter()
            .map(|(operator, operand)| test(operator, operand))
            .collect::<Result<Vec<Test>, Invalid>>()?,
        equal => vec![Test::Equal(equal.clone())],
    };
    *budget = budget.checked_sub(tests.len()).ok_or_else(|| refused("at most 100 conditions"))?;
    all.extend(tests.into_iter().map(|test| Condition::At { path: words.clone(), test }));
    Ok(())
}

fn test(operator: &str, operand: &Value) -> Result<Test, Invalid> {
    let compare = |order| match operand {
        Value::Number(number) => Ok(Test::Compare(order, Operand::Number(as_f64(number)))),
        Value::String(text) => Ok(Test::Compare(order, Operand::Text(text.clone()))),
        _ => Err(refused(format!("{operator} takes a number or a text"))),
    };
    let list = || operand.as_array().cloned().ok_or_else(|| refused(format!("{operator} takes a list of values")));
    match operator {
        "$eq" => Ok(Test::Equal(operand.clone())),
        "$ne" => Ok(Test::NotEqual(operand.clone())),
        "$gt" => compare(Order::Greater),
        "$gte" => compare(Order::GreaterOrEqual),
        "$lt" => compare(Order::Less),
        "$lte" => compare(Order::LessOrEqual),
        "$in" => list().map(Test::In),
        "$nin" => list().map(Test::NotIn),
        "$exists" => operand.as_bool().map(Test::Exists).ok_or_else(|| refused("$exists takes true or false")),
        "$starts_with" => operand
            .as_str()
            .map(|text| Test::StartsWith(text.to_owned()))
            .ok_or_else(|| refused("$starts_with takes a text")),
        "$contains" => Ok(Test::Contains(operand.clone())),
        unknown => Err(refused(format!(
            "{unknown} is not an operator; these are: $eq $ne $gt $gte $lt $lte $in $nin $exists $starts_with $contains"
        ))),
    }
}

fn all_hold(all: &[Condition], payload: &Value) -> bool {
    all.iter().all(|condition| match condition {
        Condition::At { path, test } => holds(test, find(payload, path)),
        Condition::Every(branches) => branches.iter().all(|branch| all_hold(branch, payload)),
        Condition::Any(branches) => branches.iter().any(|branch| all_hold(branch, payload)),
        Condition::Not(inner) => !all_hold(inner, payload),
    })
}

fn find<'a>(payload: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(payload, |at, word| match at {
        Value::Object(map) => Map::get(map, word),
        Value::Array(items) => items.get(word.parse::<usize>().ok()?),
        _ => None,
    })
}

fn holds(test: &Test, found: Option<&Value>) -> bool {
    match (test, found) {
        (Test::Exists(wanted), found) => found.is_some() == *wanted,
        (Test::NotEqual(value), found) => !found.is_some_and(|found| same(found, value)),
        (Test::NotIn(values), found) => !found.is_some_and(|found| values.iter().any(|value| same(found, value))),
        (_, None) => false,
        (Test::Equal(value), Some(found)) => same(found, value),
        (Test::In(values), Some(found)) => values.iter().any(|value| same(found, value)),
        (Test::Compare(order, operand), Some(found)) => compares(*order, operand, found),
        (Test::StartsWith(prefix), Some(found)) => found.as_str().is_some_and(|text| text.starts_with(prefix.as_str())),
        (Test::Contains(value), Some(Value::Array(items))) => items.iter().any(|item| same(item, value)),
        (Test::Contains(value), Some(found)) => match (found.as_str(), value.as_str()) {
            (Some(text), Some(part)) => text.contains(part),
            _ => false,
        },
    }
}

/// Equal as JSON, where 1 and 1.0 are the same number.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || as_f64(a).total_cmp(&as_f64(b)).is_eq(),
        _ => a == b,
    }
}

fn compares(order: Order, operand: &Operand, found: &Value) -> bool {
    let ordering = match (operand, found) {
        (Operand::Number(wanted), Value::Number(found)) => as_f64(found).total_cmp(wanted),
        (Operand::Text(wanted), Value::String(found)) => found.as_str().cmp(wanted),
        _ => return false,
    };
    match order {
        Order::Greater => ordering.is_gt(),
        Order::GreaterOrEqual => ordering.is_ge(),
        Order::Less => ordering.is_lt(),
        Order::LessOrEqual => ordering.is_le(),
    }
}

fn as_f64(number: &Number) -> f64 {
    number.as_f64().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions_hold_as_written() {
        let payload = json!({"data": {"total": 100, "currency": "EUR", "tags": ["a", "b"], "none": null}});
        let yes = [
            json!({"data.total": 100.0}),
            json!({"data.total": {"$gte": 100, "$lt": 101}}),
            json!({"data.tags": {"$contains": "a"}, "data.tags.1": "b"}),
            json!({"data.currency": {"$in": ["CHF", "EUR"]}}),
            json!({"data.missing": {"$exists": false}, "data.none": null}),
            json!({"$or": [{"data.total": 1}, {"data.currency": {"$starts_with": "E"}}]}),
            json!({"$not": {"data.total": {"$gt": 100}}}),
            json!({"data.missing": {"$ne": 1}, "data.currency": {"$nin": ["USD"]}}),
        ];
        for filter in yes {
            assert!(Filter::parse(filter.clone()).unwrap().matches(&payload), "{filter}");
        }
        let no = [
            json!({"data.total": "100"}),
            json!({"data.total": {"$gt": "1"}}),
            json!({"data.missing": {"$gt": 0}}),
            json!({"$and": [{"data.total": 100}, {"data.currency": "USD"}]}),
        ];
        for filter in no {
            assert!(!Filter::parse(filter.clone()).unwrap().matches(&payload), "{filter}");
        }
    }

    #[test]
    fn what_is_not_a_filter_is_refused_with_a_reason() {
        let deep = (0..10).fold(json!({"a": 1}), |inner, _| json!({"$not": inner}));
        let many: Map<String, Value> = (0..101).map(|n| (format!("k{n}"), json!(1))).collect();
        let bad = [
            json!({}),
            json!([]),
            json!("x"),
            json!({"$eq": 1}),
            json!({"a": {"$like": 1}}),
            json!({"a..b": 1}),
            json!({"$or": []}),
            json!({"a": {"$gt": []}}),
            deep,
            Value::Object(many),
        ];
        for filter in bad {
            assert_eq!(Filter::parse(filter.clone()).unwrap_err().code, "invalid_filter", "{filter}");
        }
        assert_eq!(Filter::parse(json!({"a": "x".repeat(9000)})).unwrap_err().code, "too_long");
    }
}
