-- People in browsers: those who are logged in, and those who are on their way through the OpenID provider.
create table sessions (
    id_sha256 bytea primary key check (length(id_sha256) = 32),
    person text not null,
    key_id text references api_keys (id) on delete cascade,
    key_sha256 bytea check (length(key_sha256) = 32),
    name text,
    role text check (role in ('admin', 'release', 'operator', 'viewer')),
    user_ids text[] check (cardinality(user_ids) > 0),
    created_at timestamptz not null,
    last_used_at timestamptz not null,
    expires_at timestamptz not null,
    check (num_nonnulls(key_sha256, role) = 1),
    check ((name is null) = (role is null)),
    check (key_id is null or key_sha256 is not null),
    check (user_ids is null or role is not null)
);
create index sessions_person on sessions (person, created_at);
create index sessions_expiry on sessions (expires_at);

comment on table sessions is 'Logins of people in browsers. The id itself is in the browser only.';
comment on column sessions.id_sha256 is 'SHA-256 of the id, which has 256 random bits.';
comment on column sessions.person is 'Whose it is, for the bound on how many somebody has: `key <id>`, `bootstrap`, or `oidc <issuer> <sub>`.';
comment on column sessions.key_id is 'The key that it was opened with; null for the bootstrap key, and for people of the OpenID provider.';
comment on column sessions.key_sha256 is 'SHA-256 of the whole key, as in api_keys: the session opens what the key opens now, and nothing when its secret opens no more. Null for people of the OpenID provider.';
comment on column sessions.name is 'What the log calls them; null when a key says it.';
comment on column sessions.role is 'What they may do, as the provider said at the login; null when a key says it.';
comment on column sessions.user_ids is 'Only the printers of these users, and what is about them; null: of all, or as the key says.';
comment on column sessions.created_at is 'When they logged in.';
comment on column sessions.last_used_at is 'To the minute.';
comment on column sessions.expires_at is 'From then on it opens nothing, however much it is used.';

create table logins (
    state_sha256 bytea primary key check (length(state_sha256) = 32),
    browser_sha256 bytea not null check (length(browser_sha256) = 32),
    nonce text not null,
    verifier text not null,
    return_to text not null check (return_to like '/%'),
    expires_at timestamptz not null
);
create index logins_expiry on logins (expires_at);

comment on table logins is 'Logins that were sent to the OpenID provider. A row is used once, and forgotten after some minutes.';
comment on column logins.state_sha256 is 'SHA-256 of the `state` that the provider sends back.';
comment on column logins.browser_sha256 is 'SHA-256 of the cookie of the browser that began it, which alone may end it.';
comment on column logins.nonce is 'What the ID token must hold.';
comment on column logins.verifier is 'PKCE''s secret, worth something only together with the code.';
comment on column logins.return_to is 'Path of this server where the browser goes in the end.';
comment on column logins.expires_at is 'From then on it cannot be ended.';
