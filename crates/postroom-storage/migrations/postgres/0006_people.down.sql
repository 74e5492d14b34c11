drop table mails;
drop table sessions;
drop table sign_in_tokens;
drop table users;
revoke insert, update (tx) on revisions from postroom_authorizer;
