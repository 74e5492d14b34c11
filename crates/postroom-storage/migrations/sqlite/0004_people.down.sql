drop table mail;
drop table session;
drop table sign_in_token;
drop table user;
