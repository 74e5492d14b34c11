//! People from outside: inviting, changing and losing them, and what a test needs to have some.

use postroom_domain::Email;
use postroom_storage::SuperAdmin;
use serde_json::{Value, json};

use crate::support::{Call, Engine, Room, Tenant, eventually};

/// A person with a session.
pub struct Person {
    pub id: String,
    pub email: String,
    /// The session's token.
    pub token: String,
    /// The whole `Cookie` header of their browser.
    pub cookie: String,
}

impl Room {
    /// The token of the link in the newest mail to an address. Takes all other mails out of the box.
    pub async fn mailed(&self, email: &str) -> String {
        eventually("a mail", || self.mailed_already(email)).await
    }

    /// The same, if there is one.
    pub async fn mailed_already(&self, email: &str) -> Option<String> {
        let mut found = None;
        for mail in self.storage.platform.mail_take(self.now(), 100).await.unwrap() {
            self.storage.platform.mail_done(mail.id).await.unwrap();
            if mail.to.as_str() == email {
                found = Some(mail.token.expose_str().to_owned());
            }
        }
        found
    }

    /// Waits until what requests left behind is done.
    pub async fn worked_off(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Invites somebody; returns their id.
    pub async fn invited(&self, tenant: &Tenant, email: &str, role: &str) -> String {
        let body = json!({"email": email, "role": role});
        let reply = self.post("/v1/users").bearer(&tenant.key).json(&body).send().await;
        assert_eq!(reply.status, 201, "{reply:?}");
        reply.json()["id"].as_str().unwrap().to_owned()
    }

    /// Somebody of an organization, signed in by the invitation.
    pub async fn person(&self, tenant: &Tenant, email: &str, role: &str) -> Person {
        let id = self.invited(tenant, email, role).await;
        let token = self.mailed(email).await;
        let person = self.signed_in(&token).await;
        assert_eq!((&person.id, person.email.as_str()), (&id, email));
        person
    }

    /// Uses a link.
    pub async fn signed_in(&self, token: &str) -> Person {
        let reply = self.verify(token).send().await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let session = reply.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let cookie = reply.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        let user = &session["user"];
        Person { id: text(&user["id"]), email: text(&user["email"]), token: text(&session["token"]), cookie }
    }

    /// The request that uses a link.
    pub fn verify(&self, token: &str) -> Call<'_> {
        self.post("/api/auth/verify-magic-link").json(&json!({"token": token}))
    }

    /// The request for a link.
    pub fn ask_link(&self, email: &str) -> Call<'_> {
        self.post("/api/auth/request-magic-link").json(&json!({"email": email}))
    }

    /// A super admin with a session.
    pub async fn super_admin(&self, email: &str) -> Person {
        let (email, by) = (Email::parse(email).unwrap(), SuperAdmin::by_operator());
        let link = self.storage.platform.super_admin_create(by, &email, self.now()).await.unwrap();
        self.signed_in(link.token.expose_str()).await
    }
}

pub async fn a_person_is_invited_signs_in_changes_and_is_switched_off(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let ada = room.person(&tenant, "ada@example.com", "admin").await;
    let body = json!({"email": "Bob@Example.com", "role": "member"});
    let invited = room.post("/v1/users").bearer(&ada.token).json(&body).send().await;
    assert_eq!(invited.status, 201, "{invited:?}");
    let invited = invited.json();
    let path = format!("/v1/users/{}", invited["id"].as_str().unwrap());
    let keys: Vec<&String> = invited.as_object().unwrap().keys().collect();
    let expected = [
        "created_at",
        "created_by",
        "email",
        "id",
        "invited_until",
        "is_active",
        "last_login_at",
        "role",
        "status",
        "updated_at",
    ];
    assert_eq!(keys, expected);
    assert_eq!((&invited["status"], &invited["is_active"]), (&json!("invited"), &json!(true)));
    assert_eq!((&invited["created_by"], &invited["role"]), (&json!(ada.id), &json!("member")));
    assert_eq!(invited["invited_until"], "2026-11-29T10:00:00.000Z", "seven days");
    assert_eq!(invited["email"].as_str().unwrap().to_lowercase(), "bob@example.com");

    let bob = room.signed_in(&room.mailed(invited["email"].as_str().unwrap()).await).await;
    let get = async || room.get(&path).bearer(&ada.token).send().await.json();
    let active = get().await;
    assert_eq!((&active["status"], &active["invited_until"]), (&json!("active"), &Value::Null));
    assert_eq!(active["last_login_at"], "2026-11-22T10:00:00.000Z");
    assert_eq!(room.get("/v1/events").bearer(&bob.token).send().await.status, 200);
    let list = room.get("/v1/users").bearer(&ada.token).send().await.json();
    let ids: Vec<&str> = list["data"].as_array().unwrap().iter().map(|user| user["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [bob.id.as_str(), ada.id.as_str()], "newest first");

    let patch = async |body: Value| room.call("PATCH", &path).bearer(&ada.token).json(&body).send().await;
    assert_eq!(patch(json!({"role": "admin"})).await.json()["role"], "admin");
    let off = patch(json!({"is_active": false})).await.json();
    assert_eq!((&off["status"], &off["is_active"]), (&json!("deactivated"), &json!(false)));
    assert_eq!(room.post(&format!("{path}/invite")).bearer(&ada.token).send().await.verdict(), "409 user_deactivated");
    let on = patch(json!({"is_active": true, "role": "member"})).await.json();
    assert_eq!((&on["status"], &on["role"]), (&json!("active"), &json!("member")));
    let again = room.post(&format!("{path}/invite")).bearer(&ada.token).send().await;
    assert_eq!(again.verdict(), "409 invitation_accepted");
}

pub async fn a_second_invitation_voids_the_first_and_an_old_one_is_void_by_itself(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let id = room.invited(&tenant, "ada@example.com", "admin").await;
    let first = room.mailed("ada@example.com").await;
    let invite = room.post(&format!("/v1/users/{id}/invite")).bearer(&tenant.key).send().await;
    assert_eq!((invite.status, &invite.json()["status"]), (200, &json!("invited")));
    let second = room.mailed("ada@example.com").await;
    assert_eq!(room.verify(&first).send().await.verdict(), "401 sign_in_link_invalid");
    room.forward(std::time::Duration::from_secs(7 * 24 * 3600));
    assert_eq!(room.verify(&second).send().await.verdict(), "401 sign_in_link_invalid");
    // An invitation that ran out is no way to sign in, and asking for a link is none around it.
    assert_eq!(room.ask_link("ada@example.com").send().await.status, 202);
    let invite = room.post(&format!("/v1/users/{id}/invite")).bearer(&tenant.key).send().await;
    assert_eq!(invite.status, 200, "{invite:?}");
    let person = room.signed_in(&room.mailed("ada@example.com").await).await;
    assert_eq!(person.id, id);
}

pub async fn an_address_belongs_to_one_person_in_capitals_or_not(engine: Engine) {
    let room = Room::start(engine).await;
    let (acme, other) = (room.tenant("Acme").await, room.tenant("Other").await);
    room.super_admin("root@example.com").await;
    room.invited(&acme, "ada@example.com", "member").await;
    for (tenant, email) in [
        (&acme, "ada@example.com"),
        (&acme, "ADA@example.com"),
        (&other, "Ada@EXAMPLE.com"),
        (&other, "root@example.com"),
    ] {
        let body = json!({"email": email, "role": "admin"});
        let reply = room.post("/v1/users").bearer(&tenant.key).json(&body).send().await;
        assert_eq!(reply.verdict(), "409 email_taken", "{email}");
    }
    let listed = room.get("/v1/users").bearer(&other.key).send().await.json();
    assert_eq!(listed["data"], json!([]));
}

pub async fn the_last_admin_stays_an_admin_even_when_two_take_each_other_away_at_once(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let ada = room.person(&tenant, "ada@example.com", "admin").await;
    let patch =
        |who: &str, body: Value| room.call("PATCH", &format!("/v1/users/{who}")).bearer(&tenant.key).json(&body);
    for body in [json!({"role": "member"}), json!({"is_active": false}), json!({"role": "member", "is_active": true})] {
        assert_eq!(patch(&ada.id, body.clone()).send().await.verdict(), "409 last_admin", "{body}");
    }
    // Who was invited only, or is no admin, does not count.
    room.invited(&tenant, "invited@example.com", "admin").await;
    room.person(&tenant, "member@example.com", "member").await;
    assert_eq!(patch(&ada.id, json!({"role": "member"})).send().await.verdict(), "409 last_admin");

    let eve = room.person(&tenant, "eve@example.com", "admin").await;
    for round in 0..5 {
        let (ada_off, eve_off) =
            (patch(&ada.id, json!({"is_active": false})), patch(&eve.id, json!({"role": "member"})));
        let (first, second) = tokio::join!(ada_off.send(), eve_off.send());
        let mut verdicts = [first.verdict(), second.verdict()];
        verdicts.sort();
        assert_eq!(verdicts, ["200", "409 last_admin"], "{round}");
        for (who, body) in [(&ada, json!({"is_active": true})), (&eve, json!({"role": "admin"}))] {
            assert_eq!(patch(&who.id, body).send().await.status, 200, "{round}");
        }
    }
}

pub async fn what_is_said_of_people_is_checked(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let id = room.invited(&tenant, "ada@example.com", "member").await;
    let path = format!("/v1/users/{id}");
    for (method, path, body, fields) in [
        ("POST", "/v1/users", json!({}), &["email required"][..]),
        ("POST", "/v1/users", json!({"email": "bob@example.com"}), &["role required"]),
        ("POST", "/v1/users", json!({"email": "bob", "role": "owner"}), &["email invalid_email", "role unknown_value"]),
        ("POST", "/v1/users", json!({"email": "bob@example.com", "role": "Admin"}), &["role unknown_value"]),
        ("POST", "/v1/users", json!({"email": "bob@example.com", "role": "super_admin"}), &["role unknown_value"]),
        ("POST", "/v1/users", json!({"email": null, "role": "admin"}), &["email invalid_type"]),
        ("POST", "/v1/users", json!({"email": "b@example.com", "role": "admin", "id": "x"}), &["id unknown_field"]),
        ("PATCH", &path, json!({"role": null}), &["role invalid_type"]),
        ("PATCH", &path, json!({"role": "root"}), &["role unknown_value"]),
        ("PATCH", &path, json!({"is_active": 1}), &["is_active invalid_type"]),
        ("PATCH", &path, json!({"email": "eve@example.com"}), &["email unknown_field"]),
        ("PATCH", &path, json!({"organization_id": "x"}), &["organization_id unknown_field"]),
        ("PATCH", &path, json!({"last_login_at": null}), &["last_login_at unknown_field"]),
    ] {
        let reply = room.call(method, path).bearer(&tenant.key).json(&body).send().await;
        assert_eq!(reply.verdict(), "422 validation_failed", "{body}");
        assert_eq!(reply.fields(), fields, "{body}");
    }
    let before = room.get(&path).bearer(&tenant.key).send().await.json();
    let nothing = room.call("PATCH", &path).bearer(&tenant.key).json(&json!({})).send().await;
    assert_eq!((nothing.status, nothing.json()), (200, before));
}
