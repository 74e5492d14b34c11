-- Not while there are organizations with a database of their own: the program refuses that before.
alter table revision drop column tenants;
drop table tenants;
