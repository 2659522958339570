//! What the server's role may do in the database, when it is not the role that owns the tables: no more than its statements
//! need. The owner runs the migrations.

use sqlx::{Connection as _, PgConnection};

/// Each table with what the server does to it. `update` also where a row is only locked.
const TABLES: &[(&str, &str)] = &[
    ("_sqlx_migrations", "select"),
    ("api_keys", "select, insert, update"),
    ("audit", "select"),
    ("census", "select, insert, delete"),
    ("dead_printer_keys", "select, insert"),
    ("download_links", "select, insert, update, delete"),
    ("events", "select, insert, delete"),
    ("events_horizon", "select, update"),
    ("firmware_uploads", "select, insert, delete"),
    ("firmware_versions", "select, insert, update, delete"),
    ("idempotency_keys", "select, insert, update, delete"),
    ("logins", "select, insert, delete"),
    ("outcomes", "select, insert, update, delete"),
    ("outcomes_log", "select, insert, update, delete"),
    ("owners", "select, insert, update, delete"),
    ("presence", "select, insert, update"),
    ("printer_keys", "select, insert, update, delete"),
    ("printers", "select, insert, update"),
    ("replicas", "select, insert, update, delete"),
    ("schema_floor", "select"),
    ("sessions", "select, insert, update, delete"),
    ("update_history", "select, insert, update, delete"),
    ("update_rollouts", "select, insert, update"),
];

/// Why a role was not given its rights.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// It is not there.
    #[error("there is no role `{0}`; make it first, as in: create role {0} login password '…'")]
    NoRole(String),
    /// It owns the tables, and needs no rights.
    #[error(
        "the role `{0}` owns the tables, so it may do everything already; name the one that `serve` connects as"
    )]
    Owner(String),
    /// A table has no line here, so nobody knows what the server does to it.
    #[error("nobody said what the server may do to the table `{0}`")]
    Unknown(String),
    /// PostgreSQL.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Gives a role what the server needs in this schema, and takes away whatever else it was given there.
///
/// In one transaction: a replica that runs as this role notices nothing.
pub async fn grant(conn: &mut PgConnection, name: &str) -> Result<(), GrantError> {
    let mut tx = conn.begin().await?;
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('paperminder grants', 0))")
        .execute(&mut *tx)
        .await?;
    within(&mut tx, name).await?;
    Ok(tx.commit().await?)
}

/// What the role of this connection may not do and `serve` does, as in `select on audit`.
pub(super) async fn lacking(conn: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let rights =
        TABLES.iter().flat_map(|(table, rights)| rights.split(", ").map(move |right| (*table, right)));
    let (tables, rights): (Vec<&str>, Vec<&str>) = rights.unzip();
    sqlx::query_scalar(
        "select r.\"right\" || ' on ' || r.\"table\" from unnest($1::text[], $2::text[]) r (\"table\", \"right\") \
         where to_regclass(r.\"table\") is not null and not has_table_privilege(r.\"table\", r.\"right\")",
    )
    .bind(tables)
    .bind(rights)
    .fetch_all(conn)
    .await
}

async fn within(conn: &mut PgConnection, role: &str) -> Result<(), GrantError> {
    let quoted: Option<String> =
        sqlx::query_scalar("select quote_ident(rolname) from pg_roles where rolname = $1")
            .bind(role)
            .fetch_optional(&mut *conn)
            .await?;
    let name = role;
    let role = quoted.ok_or_else(|| GrantError::NoRole(name.to_owned()))?;
    let owns = sqlx::query_scalar(
        "select exists (select 1 from pg_tables where schemaname = current_schema() and pg_has_role($1, tableowner, 'usage'))",
    );
    if owns.bind(name).fetch_one(&mut *conn).await? {
        return Err(GrantError::Owner(name.to_owned()));
    }
    let tables: Vec<String> = sqlx::query_scalar(
        "select tablename::text from pg_tables where schemaname = current_schema() order by tablename",
    )
    .fetch_all(&mut *conn)
    .await?;
    let schema: String =
        sqlx::query_scalar("select quote_ident(current_schema())").fetch_one(&mut *conn).await?;
    let mut statements = vec![
        format!("grant usage on schema {schema} to {role}"),
        format!("grant usage on all sequences in schema {schema} to {role}"),
        format!("revoke all on all tables in schema {schema} from {role}"),
    ];
    for table in tables {
        let Some((_, rights)) = TABLES.iter().find(|(name, _)| *name == table) else {
            return Err(GrantError::Unknown(table));
        };
        statements.push(format!("grant {rights} on {schema}.{table} to {role}"));
    }
    for statement in statements {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut *conn).await?;
    }
    Ok(())
}
