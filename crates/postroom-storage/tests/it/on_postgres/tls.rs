//! TLS to the database: certificates are checked whenever it is used, and authorities of one's own can be named.

mod own_server {
    use std::path::{Path, PathBuf};

    use postroom_domain::Secret;
    use postroom_storage::postgres::{OpenError, migrate};
    use postroom_testkit::postgres::{Database, Server, connect};
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    /// A certificate authority, its certificate in a file, and what it says about a host.
    struct Authority {
        file: PathBuf,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        fn new(folder: &Path, name: &str) -> Self {
            let (mut params, key) = (CertificateParams::new(Vec::new()).unwrap(), KeyPair::generate().unwrap());
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let file = folder.join(name);
            std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
            Self { file, issuer: Issuer::new(params, key) }
        }

        fn certify(&self, host: &str) -> (String, String) {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
            (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
        }
    }

    /// Puts files where the server's own account may read them and nobody else, and switches TLS on.
    async fn switch_on(server: &Server, (certificate, key): (String, String)) {
        let admin = connect(&server.admin_url()).await;
        for (file, pem) in [("server.crt", certificate), ("server.key", key)] {
            let lines = pem.trim().replace('\n', "', '");
            let sql = format!("copy (select unnest(array['{lines}'])) to program 'umask 077; cat > {file}'");
            admin.batch_execute(&sql).await.unwrap();
        }
        server.set("ssl", "on").await;
    }

    async fn status(url: &str, query: &str) -> Result<usize, OpenError> {
        migrate::status(&Secret::from(format!("{url}?{query}").as_str())).await.map(|steps| steps.len())
    }

    #[tokio::test]
    async fn a_certificate_is_checked_whenever_tls_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (Authority::new(folder.path(), "our ca.pem"), Authority::new(folder.path(), "theirs.pem"));
        let ca = ours.file.to_str().unwrap().replace(' ', "%20");
        let server = Server::start().await;
        let database = Database::on(&server.admin_url()).await;
        let url = database.owner_url();
        let without = status(&url, &format!("sslmode=require&sslrootcert={ca}")).await;
        assert!(without.unwrap_err().to_string().contains("does not support TLS"));
        assert!(status(&url, "sslmode=prefer").await.is_ok(), "no TLS there: none is used");

        switch_on(&server, ours.certify("127.0.0.1")).await;
        for query in [format!("sslmode=require&sslrootcert={ca}"), format!("sslmode=verify-full&sslrootcert={ca}")] {
            assert!(status(&url, &query).await.is_ok(), "{query}");
        }
        assert!(status(&url, "sslmode=disable").await.is_ok());
        let theirs = theirs.file.to_str().unwrap();
        for query in ["", "sslmode=require", "sslmode=prefer", &format!("sslmode=require&sslrootcert={theirs}")] {
            let error = status(&url, query).await.unwrap_err();
            assert!(matches!(error, OpenError::Certificate(_)), "{query}: {error}");
            assert!(error.to_string().contains("sslrootcert=/path/ca.pem"), "{error}");
        }

        switch_on(&server, ours.certify("db.example.com")).await;
        let error = status(&url, &format!("sslmode=verify-full&sslrootcert={ca}")).await.unwrap_err();
        assert!(matches!(error, OpenError::Certificate(_)), "another host's certificate: {error}");
    }
}

use postroom_domain::Secret;
use postroom_storage::postgres::{OpenError, migrate};

#[tokio::test]
async fn a_file_that_holds_no_certificates_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("missing", None),
        ("empty", Some("")),
        ("text", Some("certificate")),
        ("cut", Some("-----BEGIN CERTIFICATE-----\nMIIB")),
        ("other", Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
    ] {
        let file = folder.path().join(name);
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let url = format!("postgres://postroom:hunter2@127.0.0.1:1/postroom?sslrootcert={}", file.display());
        let error = migrate::status(&Secret::from(url.as_str())).await.unwrap_err();
        assert!(matches!(&error, OpenError::Authorities { path, .. } if *path == file), "{name}: {error}");
    }
}
