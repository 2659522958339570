-- Whether a printer is there changes every time that it comes and goes; what it is hardly ever does. So both have a table,
-- and coming back writes one narrow row.
create table presence (
    printer uuid primary key,
    number bigint not null,
    connection bigint not null,
    replica uuid,
    last_connected timestamptz,
    last_disconnected timestamptz,
    last_ip text check (length(last_ip) <= 45),
    online_seconds double precision not null default 0 check (online_seconds >= 0)
) with (fillfactor = 70);

comment on table presence is 'Where each printer is, one row a printer, written when it comes and when it goes. Online is the join with replicas that live.';
comment on column presence.printer is 'The printer, whose row was held when this was written.';
comment on column presence.number is 'Its number, for the order of lists.';
comment on column presence.connection is 'The number of its newest connection; a higher one is newer.';
comment on column presence.replica is 'The replica that has this connection; null once it ended.';
comment on column presence.last_connected is 'When this connection began.';
comment on column presence.last_disconnected is 'When its last connection ended that did end.';
comment on column presence.last_ip is 'Where this connection came from.';
comment on column presence.online_seconds is 'For how long it was online in all its earlier connections together.';

insert into presence (printer, number, connection, replica, last_connected, last_disconnected, last_ip)
select id, number, connection, replica, last_connected, last_disconnected, last_ip from printers;

create index presence_replica on presence (replica) where replica is not null;
create index presence_by_last_connected on presence (coalesce(last_connected, '-infinity'), number);

drop index printers_replica, printers_by_last_connected;
alter table printers
    drop column connection, drop column replica, drop column last_connected, drop column last_disconnected, drop column last_ip;
