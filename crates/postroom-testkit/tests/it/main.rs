//! The kit itself: what it promises to the tests that stand on it.

mod postgres {
    mod database;
    mod own_server;
    mod pgbouncer;
    mod proxy;

    use tokio_postgres::Client;
    use tokio_postgres::types::FromSqlOwned;

    /// The one value of a query's one row.
    async fn one<T: FromSqlOwned>(client: &Client, query: &str) -> T {
        client.query_one(query, &[]).await.unwrap().get(0)
    }
}
