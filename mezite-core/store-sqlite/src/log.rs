//! Questions to the event log.
//!
//! Events are wanted by falling or rising sequence, so an index is of use where its entries for one value lie in that
//! order. Each index ends with type and success: one user's events are a list for each type and outcome, and types are few.
//! A question reads from each list that matches no more than what is wanted, so its cost does not grow with the log. A time
//! is turned into runs of sequences first ([`runs`]).

use mezite_core::store::{BLOCK, LogQuery, Order, Run, StoreError, StoredEvent, runs};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use crate::error::from_sqlite;
use crate::read::{end_of, positive, rows};

/// The events that a query asks for, as of one moment.
pub(crate) fn find(
    connection: &Connection,
    query: &LogQuery,
) -> Result<Vec<StoredEvent>, StoreError> {
    let find = || {
        // A dump asks within its own transaction.
        let moment = connection
            .is_autocommit()
            .then(|| connection.unchecked_transaction())
            .transpose()?;
        let found = find_now(connection, query)?;
        moment.map(rusqlite::Transaction::commit).transpose()?;
        Ok(found)
    };
    let found = find().map_err(|error| from_sqlite(&error))?;
    let stored = |(sequence, body)| {
        Ok(StoredEvent {
            sequence: positive(sequence)?,
            body,
        })
    };
    found.into_iter().map(stored).collect()
}

type Found = Vec<(i64, Vec<u8>)>;

fn find_now(connection: &Connection, query: &LogQuery) -> Result<Found, rusqlite::Error> {
    if query.id.is_some() {
        return read_bodies(connection, &by_id(query));
    }
    let mut found = Found::new();
    for run in runs_of(connection, query)? {
        let missing = query.limit.saturating_sub(found.len());
        if missing == 0 {
            break;
        }
        let lists = Lists::of(query);
        match lists {
            None => found.extend(read_bodies(connection, &in_row(query, run, missing))?),
            Some(lists) => {
                for sequence in merge(connection, query, &lists, run, missing)? {
                    let select = "SELECT body FROM event WHERE sequence = ?";
                    let mut statement = connection.prepare_cached(select)?;
                    found.push((sequence, statement.query_row([sequence], |row| row.get(0))?));
                }
            }
        }
    }
    Ok(found)
}

fn runs_of(connection: &Connection, query: &LogQuery) -> Result<Vec<Run>, rusqlite::Error> {
    if query.since.is_none() && query.until.is_none() {
        return Ok(vec![Run::all(query)]);
    }
    let all = Run::all(query);
    let time = |time: Option<mezite_core::UnixTime>, or: i64| {
        time.map_or(or, |time| whole(time.as_millis()))
    };
    let mut statement = connection.prepare_cached(
        "SELECT block, earliest >= ?1 AND latest < ?2 AND block < (SELECT max(block) FROM event_block)
         FROM event_block WHERE latest >= ?1 AND earliest < ?2 AND block BETWEEN ?3 AND ?4 ORDER BY block",
    )?;
    let blocks = statement.query_map(
        [
            time(query.since, i64::MIN),
            time(query.until, i64::MAX),
            whole(all.first / BLOCK),
            whole(all.last / BLOCK),
        ],
        |row| Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get(1)?)),
    )?;
    Ok(runs(query, blocks.collect::<Result<Vec<_>, _>>()?))
}

/// Lists of one index, in each of which the sequences rise.
struct Lists {
    index: &'static str,
    /// What the index begins with.
    lead: Conditions,
    /// What only a look at the events decides.
    rest: Conditions,
}

type Conditions = Vec<(&'static str, Value)>;

impl Lists {
    /// `None` if nothing but place and time is asked for.
    fn of(query: &LogQuery) -> Option<Self> {
        let condition = |name: &'static str, value: &Option<String>| {
            value.clone().map(|value| (name, Value::Text(value)))
        };
        let user = condition("user_name = ?", &query.user_name);
        let node = condition("server_hostname = ?", &query.server_hostname);
        let session = condition("session_id = ?", &query.session_id);
        let (index, lead, rest) = match (session, user, node) {
            (Some(session), user, node) => (
                "event_session",
                vec![session],
                user.into_iter().chain(node).collect(),
            ),
            (None, Some(user), Some(node)) => ("event_user_node", vec![user, node], vec![]),
            (None, Some(user), None) => ("event_user", vec![user], vec![]),
            (None, None, Some(node)) => ("event_node", vec![node], vec![]),
            (None, None, None) if query.event_type.is_none() && query.success.is_none() => {
                return None;
            }
            (None, None, None) => ("event_kind", vec![], vec![]),
        };
        Some(Self { index, lead, rest })
    }

    /// The types of its events that the query asks for: one step in the index for each.
    fn types(
        &self,
        connection: &Connection,
        wanted: Option<&str>,
    ) -> Result<Vec<String>, rusqlite::Error> {
        let prefix = match wanted {
            Some(exact) if !exact.ends_with('.') => return Ok(vec![exact.to_owned()]),
            prefix => prefix.unwrap_or_default(),
        };
        let mut types: Vec<String> = Vec::new();
        loop {
            let (bound, last) = match types.last() {
                None => ("event_type >= ?", prefix),
                Some(last) => ("event_type > ?", last.as_str()),
            };
            let mut statement =
                Statement::new(&format!("event_type FROM event INDEXED BY {}", self.index));
            statement.add(self.lead.iter().cloned());
            statement.add([
                (bound, Value::Text(last.to_owned())),
                ("event_type < ?", Value::Text(end_of(prefix))),
            ]);
            statement.sql.push_str(" ORDER BY event_type LIMIT 1");
            let next = connection
                .prepare_cached(&statement.sql)?
                .query_row(params_from_iter(statement.values), |row| row.get(0))
                .optional()?;
            match next {
                Some(next) => types.push(next),
                None => return Ok(types),
            }
        }
    }
}

/// The first `limit` sequences of a run in the query's order, from all lists.
fn merge(
    connection: &Connection,
    query: &LogQuery,
    lists: &Lists,
    mut run: Run,
    limit: usize,
) -> Result<Vec<i64>, rusqlite::Error> {
    let outcomes: &[Value] = match query.success {
        Some(true) => &[Value::Integer(1)],
        Some(false) => &[Value::Integer(0)],
        None => &[Value::Integer(1), Value::Integer(0), Value::Null],
    };
    let mut found: Vec<i64> = Vec::new();
    for event_type in lists.types(connection, query.event_type.as_deref())? {
        for outcome in outcomes {
            let mut statement =
                Statement::new(&format!("sequence FROM event INDEXED BY {}", lists.index));
            statement.add(lists.lead.iter().cloned());
            statement.add([
                ("event_type = ?", Value::Text(event_type.clone())),
                ("success IS ?", outcome.clone()),
            ]);
            statement.add(lists.rest.iter().cloned());
            statement.within(query, run);
            statement.finish(query.order, limit);
            let mut statement_of = connection.prepare_cached(&statement.sql)?;
            let next =
                statement_of.query_map(params_from_iter(statement.values), |row| row.get(0))?;
            found.extend(next.collect::<Result<Vec<i64>, _>>()?);
            found.sort_unstable();
            if query.order == Order::NewestFirst {
                found.reverse();
            }
            found.truncate(limit);
            // With enough in hand, only what comes before the last of them is of interest.
            if let Some(last) = limit.checked_sub(1).and_then(|last| found.get(last)) {
                match query.order {
                    Order::OldestFirst => run.last = last.unsigned_abs(),
                    Order::NewestFirst => run.first = last.unsigned_abs(),
                }
            }
        }
    }
    Ok(found)
}

/// A `SELECT`, and its values. Its text holds none of them.
struct Statement {
    sql: String,
    values: Vec<Value>,
}

impl Statement {
    fn new(what: &str) -> Self {
        Self {
            sql: format!("SELECT {what} WHERE TRUE"),
            values: Vec::new(),
        }
    }

    fn add(&mut self, conditions: impl IntoIterator<Item = (&'static str, Value)>) {
        for (condition, value) in conditions {
            self.sql.push_str(" AND ");
            self.sql.push_str(condition);
            self.values.push(value);
        }
    }

    fn within(&mut self, query: &LogQuery, run: Run) {
        self.add([
            ("sequence >= ?", Value::Integer(whole(run.first))),
            ("sequence <= ?", Value::Integer(whole(run.last))),
        ]);
        if !run.certain {
            self.add(times(query));
        }
    }

    fn finish(&mut self, order: Order, limit: usize) {
        self.sql.push_str(match order {
            Order::OldestFirst => " ORDER BY sequence LIMIT ?",
            Order::NewestFirst => " ORDER BY sequence DESC LIMIT ?",
        });
        self.values.push(Value::Integer(rows(limit)));
    }
}

fn times(query: &LogQuery) -> Conditions {
    let time = |condition, time: Option<mezite_core::UnixTime>| {
        time.map(|time| (condition, Value::Integer(whole(time.as_millis()))))
    };
    let since = time("timestamp >= ?", query.since);
    since
        .into_iter()
        .chain(time("timestamp < ?", query.until))
        .collect()
}

fn in_row(query: &LogQuery, run: Run, limit: usize) -> Statement {
    let mut statement = Statement::new("sequence, body FROM event");
    statement.within(query, run);
    statement.finish(query.order, limit);
    statement
}

/// An id has one event: whatever else is asked is asked of it.
fn by_id(query: &LogQuery) -> Statement {
    let mut statement = Statement::new("sequence, body FROM event INDEXED BY event_id");
    statement.add(query.id.map(|id| ("id = ?", Value::Text(id.to_string()))));
    let text = |value: &str| Value::Text(value.to_owned());
    match query.event_type.as_deref() {
        Some(prefix) if prefix.ends_with('.') => statement.add([
            ("event_type >= ?", text(prefix)),
            ("event_type < ?", Value::Text(end_of(prefix))),
        ]),
        exact => statement.add(exact.map(|exact| ("event_type = ?", text(exact)))),
    }
    if let Some(lists) = Lists::of(query) {
        statement.add(lists.lead.into_iter().chain(lists.rest));
    }
    statement.add(
        query
            .success
            .map(|success| ("success = ?", Value::Integer(success.into()))),
    );
    statement.within(
        query,
        Run {
            certain: false,
            ..Run::all(query)
        },
    );
    statement.finish(query.order, query.limit);
    statement
}

fn read_bodies(connection: &Connection, statement: &Statement) -> Result<Found, rusqlite::Error> {
    connection
        .prepare_cached(&statement.sql)?
        .query_map(params_from_iter(&statement.values), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect()
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use mezite_core::store::Order;
    use mezite_core::{EventId, UnixTime};
    use rusqlite::trace::{TraceEvent, TraceEventCodes};

    use super::*;
    use crate::schema;

    fn every_combination() -> Vec<LogQuery> {
        let (text, time) = (Some("x".to_owned()), Some(UnixTime::from_secs(5)));
        let queries = (0_u32..1 << 11).map(|bits| {
            let set = |bit: u32| bits & (1 << bit) != 0;
            LogQuery {
                after: u64::from(set(0)),
                before: set(1).then_some(4),
                id: (bits % 64 == 63).then_some(EventId::from_bytes([1; 16])),
                event_type: match (set(2), set(3)) {
                    (true, false) => Some("test.event".to_owned()),
                    (true, true) => Some("test.".to_owned()),
                    (false, _) => None,
                },
                user_name: text.clone().filter(|_| set(4)),
                server_hostname: text.clone().filter(|_| set(5)),
                session_id: text.clone().filter(|_| set(6)),
                success: set(7).then_some(set(3)),
                since: time.filter(|_| set(8)),
                until: time.filter(|_| set(9)),
                limit: 100,
                order: if set(10) {
                    Order::NewestFirst
                } else {
                    Order::OldestFirst
                },
            }
        });
        queries.collect()
    }

    /// No statement of any query walks over the log or sorts a part of it.
    #[test]
    fn no_combination_of_filters_scans_the_log() {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::prepare(&mut connection, Path::new("db")).unwrap();
        let fill = "INSERT INTO event (sequence, id, event_type, timestamp, user_name, server_hostname, session_id, success, body)
            VALUES (1, 'a', 'test.event', 5000, 'x', 'x', 'x', 1, x''), (2, 'b', 'test.event', 4000, 'x', 'x', 'x', 0, x'');
            INSERT INTO event_block VALUES (0, 4000, 5000), (1, 5000, 5000)";
        connection.execute_batch(fill).unwrap();
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let remember = Arc::clone(&seen);
        let trace = move |event: TraceEvent<'_>| {
            if let TraceEvent::Stmt(statement, _) = event {
                let sql = statement.expanded_sql().unwrap();
                remember.lock().unwrap().insert(sql);
            }
        };
        connection
            .trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(trace))
            .unwrap();
        for query in every_combination() {
            find(&connection, &query).unwrap();
        }
        let statements = seen.lock().unwrap().clone();
        let (mut covering, mut asked) = (0, 0);
        for sql in statements.iter().filter(|sql| sql.starts_with("SELECT")) {
            let plan: Vec<String> = connection
                .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
                .unwrap()
                .query_map([], |row| row.get("detail"))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            for step in &plan {
                let walks = step.starts_with("SCAN") && !step.contains("CONSTANT ROW");
                assert!(
                    !walks && !step.contains("TEMP B-TREE"),
                    "{plan:?} for {sql}"
                );
            }
            covering += usize::from(plan.iter().any(|step| step.contains("COVERING INDEX")));
            asked += 1;
        }
        assert!(covering > 20 && asked > covering, "{covering} of {asked}");
    }
}
