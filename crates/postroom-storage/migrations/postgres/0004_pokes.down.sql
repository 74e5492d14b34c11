drop table pokes;
