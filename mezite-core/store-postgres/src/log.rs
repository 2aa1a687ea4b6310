//! What the event log is asked.
//!
//! Each index of events ends with type, outcome and sequence, so one user's events are a list for each type and outcome,
//! and types are few. A question finds the types in as many steps, reads from each list that matches no more than what is
//! wanted, and takes the bodies of the first of all of them; its cost does not grow with the log. A time is turned into runs
//! of sequences first ([`mezite_core::store::runs`]).

use mezite_core::UnixTime;
use mezite_core::store::{BLOCK, LogQuery, Order, Run, StoreError};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::read::{Values, bytes, end_of, integer, number, rows, unreadable};
use crate::schema::INDEXED;

/// Asks for the blocks that overlap the time of a query, if it names one.
pub(crate) fn blocks(query: &LogQuery) -> Option<(String, Values)> {
    if query.since.is_none() && query.until.is_none() {
        return None;
    }
    let all = Run::all(query);
    let time = |time: Option<UnixTime>, or: u64| integer(time.map_or(or, |time| time.as_millis()));
    let sql = "
        SELECT block, earliest >= $1 AND latest < $2 AND block < (SELECT max(block) FROM mezite.event_block)
        FROM mezite.event_block WHERE latest >= $1 AND earliest < $2 AND block BETWEEN $3 AND $4 ORDER BY block";
    let values = vec![
        time(query.since, 0),
        time(query.until, u64::MAX),
        integer(all.first / BLOCK),
        integer(all.last / BLOCK),
    ];
    Some((sql.to_owned(), values))
}

pub(crate) fn block(row: &Row) -> Result<(u64, bool), StoreError> {
    let certain = row.try_get(1).map_err(|error| unreadable(&error))?;
    Ok((number(row, 0)?, certain))
}

/// The statement for a run of a query, and its values. Its text holds none of them.
pub(crate) fn sql(query: &LogQuery, run: Run, limit: usize) -> (String, Values) {
    let mut question = Question::default();
    let sql = if let Some(id) = query.id {
        // An id has one event: whatever else is asked is asked of it.
        let id = question.value(Box::new(id.as_bytes().to_vec()));
        let lead = question.lead(query);
        let kind = match &query.event_type {
            None => String::new(),
            Some(_) => format!(" AND {}", question.types(query)),
        };
        let outcome = outcome(query.success)
            .map_or_else(String::new, |outcome| format!(" AND outcome = {outcome}"));
        let run = Run {
            certain: false,
            ..run
        };
        let within = question.within("sequence", query, run);
        format!(
            "SELECT sequence, body FROM mezite.event WHERE id = {id} AND {within}{lead}{kind}{outcome}"
        )
    } else if is_of_place_and_time_only(query) {
        let within = question.within("sequence", query, run);
        format!("SELECT sequence, body FROM mezite.event WHERE {within}")
    } else {
        question.merged(query, run, limit)
    };
    let order = direction(query.order);
    let limit = question.value(rows(limit));
    let sql = format!("{sql} ORDER BY sequence {order} LIMIT {limit}");
    (sql, question.0)
}

fn is_of_place_and_time_only(query: &LogQuery) -> bool {
    query.event_type.is_none()
        && query.success.is_none()
        && texts(query).iter().all(|(_, wanted)| wanted.is_none())
}

fn texts(query: &LogQuery) -> [(&'static str, Option<&str>); 3] {
    [
        ("session_id", query.session_id.as_deref()),
        ("user_name", query.user_name.as_deref()),
        ("server_hostname", query.server_hostname.as_deref()),
    ]
}

fn outcome(success: Option<bool>) -> Option<u8> {
    success.map(u8::from)
}

fn direction(order: Order) -> &'static str {
    match order {
        Order::OldestFirst => "ASC",
        Order::NewestFirst => "DESC",
    }
}

/// The values of a statement that is being written.
#[derive(Default)]
struct Question(Values);

impl Question {
    fn value(&mut self, value: Box<dyn ToSql + Sync + Send>) -> String {
        self.0.push(value);
        format!("${}", self.0.len())
    }

    fn within(&mut self, place: &str, query: &LogQuery, run: Run) -> String {
        let (first, last) = (
            self.value(integer(run.first)),
            self.value(integer(run.last)),
        );
        let mut sql = format!("{place} BETWEEN {first} AND {last}");
        for (compare, time) in [(">=", query.since), ("<", query.until)] {
            if let Some(time) = time.filter(|_| !run.certain) {
                let time = self.value(integer(time.as_millis()));
                sql.push_str(&format!(" AND timestamp {compare} {time}"));
            }
        }
        sql
    }

    /// The conditions on user, node and session, each behind an `AND`.
    fn lead(&mut self, query: &LogQuery) -> String {
        let mut sql = String::new();
        for (name, wanted) in texts(query) {
            let Some(wanted) = wanted else { continue };
            let value = self.value(bytes(wanted));
            // The index holds the beginning; all of it decides.
            sql.push_str(&format!(
                " AND substring({name} FROM 1 FOR {INDEXED}) = substring({value}::bytea FROM 1 FOR {INDEXED})
                  AND {name} IS NOT NULL"
            ));
            if usize::try_from(INDEXED).is_ok_and(|indexed| wanted.len() >= indexed) {
                sql.push_str(&format!(" AND {name} = {value}"));
            }
        }
        sql
    }

    fn types(&mut self, query: &LogQuery) -> String {
        match query.event_type.as_deref() {
            Some(exact) if !exact.ends_with('.') => {
                format!("event_type = {}", self.value(bytes(exact)))
            }
            prefix => {
                let prefix = prefix.unwrap_or_default();
                let (low, high) = (self.value(bytes(prefix)), self.value(end_of(prefix)));
                format!("event_type >= {low} AND event_type < {high}")
            }
        }
    }

    /// One step in the index for each type.
    fn kinds(&mut self, query: &LogQuery, lead: &str) -> String {
        let types = self.types(query);
        format!(
            "(SELECT event_type FROM mezite.event WHERE {types}{lead} ORDER BY event_type LIMIT 1)
             UNION ALL
             SELECT (
                 SELECT event_type FROM mezite.event WHERE {types}{lead} AND event_type > kind.name
                 ORDER BY event_type LIMIT 1
             ) FROM kind WHERE kind.name IS NOT NULL"
        )
    }

    fn merged(&mut self, query: &LogQuery, run: Run, limit: usize) -> String {
        let lead = self.lead(query);
        let exact = query
            .event_type
            .as_deref()
            .filter(|wanted| !wanted.ends_with('.'));
        let kinds = match exact {
            Some(exact) => format!("VALUES ({}::bytea)", self.value(bytes(exact))),
            None => self.kinds(query, &lead),
        };
        // As in the indexes: the order of the primary key would be no help.
        let within = self.within("sequence + 0", query, run);
        let limit = self.value(rows(limit));
        let order = direction(query.order);
        let outcomes = outcome(query.success).map_or_else(
            || String::from("(0), (1), (2)"),
            |outcome| format!("({outcome})"),
        );
        format!(
            "WITH RECURSIVE kind (name) AS (
                {kinds}
            ), found AS MATERIALIZED (
                SELECT list.sequence
                FROM kind CROSS JOIN (VALUES {outcomes}) AS ending (outcome) CROSS JOIN LATERAL (
                    SELECT sequence FROM mezite.event
                    WHERE event_type = kind.name AND outcome = ending.outcome{lead} AND {within}
                    ORDER BY sequence + 0 {order} LIMIT {limit}
                ) AS list
                ORDER BY list.sequence {order} LIMIT {limit}
            )
            SELECT sequence, body FROM found JOIN mezite.event USING (sequence)"
        )
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use mezite_core::EventId;

    use super::*;
    use crate::read::{SETTINGS, borrowed};
    use crate::testing::Server;
    use crate::{Options, PostgresStore, session};

    /// Both users and nodes with few events, and those with nearly all.
    const FILL: &str = "
        INSERT INTO mezite.event (sequence, id, event_type, timestamp, user_name, server_hostname, session_id, success, body)
        SELECT n, int8send(n), ('type.' || n % 20)::bytea, n * 1000, ('user' || least(n % 50, 7))::bytea,
            ('node' || least(n % 60, 7))::bytea, ('session' || n / 20)::bytea, n % 90 > 0, 'x'
        FROM generate_series(1::bigint, 40000) AS n;
        INSERT INTO mezite.event_block SELECT sequence / 4096, min(timestamp), max(timestamp) FROM mezite.event GROUP BY 1;
        ANALYZE mezite.event";

    fn every_combination() -> Vec<LogQuery> {
        let text = |text: &str, set: bool| set.then(|| text.to_owned());
        let queries = (0_u32..1 << 9).map(|bits| {
            let set = |bit: u32| bits & (1 << bit) != 0;
            LogQuery {
                after: 7,
                before: set(6).then_some(30_000),
                id: (bits % 64 == 63).then_some(EventId::from_bytes([1; 16])),
                event_type: match (set(0), set(1)) {
                    (true, false) => Some("type.7".to_owned()),
                    (true, true) => Some("type.".to_owned()),
                    (false, _) => None,
                },
                user_name: text("user7", set(2)),
                server_hostname: text("node3", set(3)),
                session_id: text("session9", set(4)),
                success: set(5).then_some(set(1)),
                since: set(7).then_some(UnixTime::from_secs(9000)),
                until: None,
                limit: 100,
                order: if set(8) {
                    Order::NewestFirst
                } else {
                    Order::OldestFirst
                },
            }
        });
        queries.collect()
    }

    /// Whether the server knows the values when it plans or not.
    #[tokio::test]
    async fn no_combination_of_filters_scans_the_log() {
        let server = Server::shared();
        let string = server.database();
        let options = Options::parse(&string, None, None).unwrap();
        drop(PostgresStore::open(options.clone()).await.unwrap());
        server.sql(&string, FILL);
        let client = session::connect(&options).await.unwrap();
        client.batch_execute(SETTINGS).await.unwrap();
        for mode in ["force_custom_plan", "force_generic_plan"] {
            let set = format!("SET plan_cache_mode = {mode}");
            client.batch_execute(&set).await.unwrap();
            for query in every_combination() {
                let run = Run {
                    certain: query.since.is_none(),
                    ..Run::all(&query)
                };
                let (sql, values) = sql(&query, run, query.limit);
                let explain = format!("EXPLAIN {sql}");
                let plan = client.query(&explain, &borrowed(&values)).await.unwrap();
                let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
                let plan = plan.join("\n");
                assert!(
                    !plan.contains("Seq Scan on event"),
                    "{query:?}\n{sql}\n{plan}"
                );
            }
        }
    }
}
