-- The server processes that are alive: the join that tells which printers are online.
create table replicas (
    id uuid primary key,
    name text not null,
    started_at timestamptz not null default now(),
    lease_until timestamptz not null
);

comment on table replicas is 'One row a running server process. A printer is online while the replica that holds its socket has a lease.';
comment on column replicas.id is 'Made anew at every start of a process.';
comment on column replicas.name is 'Host name of the process, for people.';
comment on column replicas.started_at is 'When the process started, by the database''s clock.';
comment on column replicas.lease_until is 'Renewed by a heartbeat. Past it, the printers of this replica count as offline.';
