//! `key`: keys of REST, without a server.

use std::process::ExitCode;

use chrono::TimeDelta;
use comfy_table::{Table, presets};
use secrecy::ExposeSecret as _;

use super::{Fatal, runtime};
use crate::audit::{self, Actor};
use crate::auth::Scope;
use crate::auth::db::{self as keys, Key, Wanted};
use crate::auth::key::{KeyId, NewKey};
use crate::auth::role::Role;
use crate::clock::Clock;
use crate::config::{Config, Database};
use crate::{app, db};

/// What shows who made a key here.
const BY: &str = "cli";

#[derive(clap::Subcommand)]
pub(super) enum What {
    /// Make a key and print it: it is kept nowhere, so this is the only time
    Create {
        /// What it is for
        #[arg(long)]
        name: String,
        /// What its holder may do
        #[arg(long, value_enum)]
        role: Role,
        /// Only the printers of this user, and what is about them; may be given more than once
        #[arg(long = "user", value_name = "USER_ID")]
        users: Vec<String>,
        /// Only this channel; may be given more than once
        #[arg(long = "channel")]
        channels: Vec<String>,
        /// Only this platform; may be given more than once
        #[arg(long = "platform")]
        platforms: Vec<String>,
        /// Days until it opens nothing any more; it does not end unless given
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
        expires_in: Option<u32>,
    },
    /// List all keys, without their secrets
    List,
    /// Revoke a key: it opens nothing a second later, on any replica
    Revoke {
        /// The 12 digits between `pmk_` and the secret
        id: KeyId,
    },
}

/// Does it: exit code 1 when there is no such key.
pub(super) fn key(what: &What) -> Result<ExitCode, Fatal> {
    let database = Config::database_from_env()?;
    runtime()?.block_on(async {
        let pool = db::pool(app::database(&database).await?, 1);
        let now = Clock::system().now();
        let operation = match what {
            What::Create { .. } => "key create",
            What::List => "key list",
            What::Revoke { .. } => "key revoke",
        };
        let actor = Actor { name: BY.into(), operation: Some(operation.into()), ..Actor::default() };
        let mut tx = audit::begin(&pool, &actor).await?;
        match what {
            What::Create { name, role, users, channels, platforms, expires_in } => {
                let expires_at = expires_in.map(|days| now + TimeDelta::days(i64::from(days)));
                let list = |names: &[String]| (!names.is_empty()).then(|| names.to_vec());
                let scope =
                    Scope { user_ids: list(users), channels: list(channels), platforms: list(platforms) };
                let wanted = Wanted::new(name, *role, scope, expires_at, now).map_err(|wrong| {
                    let each: Vec<_> =
                        wrong.iter().map(|wrong| format!("{} {}", wrong.field, wrong.detail)).collect();
                    each.join("; ")
                })?;
                let new = NewKey::generate()?;
                let key = keys::create(&mut tx, &new, &wanted, BY, now).await?;
                tx.commit().await?;
                eprintln!("{} key {} \"{}\"; it is shown this once:", key.role, key.id, key.name);
                println!("{}", new.text.expose_secret());
            }
            What::List => {
                let all = keys::all(&mut tx).await?;
                println!("{}", table(&all, now));
            }
            What::Revoke { id } => {
                let Some(key) = keys::revoke(&mut tx, id, now).await? else {
                    return Err(
                        format!("no key has the id {id}; `paperminder-ota key list` shows all").into()
                    );
                };
                tx.commit().await?;
                println!("{} \"{}\" opens nothing any more", key.id, key.name);
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The first key, when there is none: whoever starts a server for the first time reads it where it started.
pub(super) async fn first(database: &Database, base_url: &str) -> Result<(), Fatal> {
    let pool = db::pool(app::database(database).await?, 1);
    let now = Clock::system().now();
    let actor = Actor { name: BY.into(), operation: Some("serve --first-key".into()), ..Actor::default() };
    let mut tx = audit::begin(&pool, &actor).await?;
    if !keys::none(&mut tx).await? {
        return Ok(());
    }
    let wanted = Wanted::new("first", Role::Admin, Scope::default(), None, now)
        .map_err(|_| "the first key has no name")?;
    let new = NewKey::generate()?;
    keys::create(&mut tx, &new, &wanted, BY, now).await?;
    tx.commit().await?;
    println!(
        "\nThe first administrator's key, shown this once:\n\n  {}\n\n  curl -H 'X-API-Key: …' {base_url}/api/stats\n",
        new.text.expose_secret()
    );
    Ok(())
}

fn table(all: &[Key], now: crate::clock::Time) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["ID", "NAME", "ROLE", "SCOPE", "STATUS", "CREATED", "BY", "EXPIRES", "LAST USED"]);
    let time = |time: Option<crate::clock::Time>| {
        time.map_or_else(|| "never".to_owned(), |time| time.format("%F %H:%M").to_string())
    };
    for key in all {
        table.add_row([
            key.id.clone(),
            key.name.clone(),
            key.role.to_string(),
            scope(&key.scope),
            key.status(now).to_owned(),
            time(Some(key.created_at)),
            key.created_by.clone(),
            time(key.expires_at),
            time(key.last_used_at),
        ]);
    }
    table
}

fn scope(scope: &Scope) -> String {
    let lists = [("users", &scope.user_ids), ("channels", &scope.channels), ("platforms", &scope.platforms)];
    let said: Vec<_> = lists
        .into_iter()
        .filter_map(|(name, list)| Some(format!("{name} {}", list.as_ref()?.join(", "))))
        .collect();
    if said.is_empty() { "everything".to_owned() } else { said.join("; ") }
}
