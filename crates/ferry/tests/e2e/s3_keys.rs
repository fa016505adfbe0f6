//! Where keys for a bucket come from: a real server that asks for them, and hosts that give them.

use ferry_test_world::{Answer, MachineCommand, Origin, S3Server, World};

use crate::s3::{address, sender};
use crate::support::{Built, ferry};

const ACCESS: &str = "AKIAFERRY";
const SECRET: &str = "wJalr/XUtnFEMI+K7MDENG";

#[test]
fn keys_come_from_the_environment_or_a_profile_and_a_wrong_one_is_told_without_being_shown() {
    let (Some(world), Some(server)) = (World::open(), S3Server::with_keys(ACCESS, SECRET)) else {
        return;
    };
    let sender = sender(&world);
    let machine = &sender.machine;
    server.bucket("cache");
    let copy = |parameters: &str| {
        let to = address(&server, "cache", parameters);
        ferry(machine, ["copy", &sender.top, "--to", &to]).online()
    };
    let refused = copy("").fails();
    assert_eq!(refused.code(), 1);
    assert!(refused.stderr.contains("S3 answers 403 AccessDenied"), "{}", refused.stderr);
    assert!(refused.stderr.contains("hint: reading takes s3:GetObject"), "{}", refused.stderr);

    let with =
        |secret| copy("").env("AWS_ACCESS_KEY_ID", ACCESS).env("AWS_SECRET_ACCESS_KEY", secret);
    let wrong = with("wrong/secret").arg("--verbose").fails();
    assert!(wrong.stderr.contains("SignatureDoesNotMatch"), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("hint: look at AWS_ACCESS_KEY_ID"), "{}", wrong.stderr);
    assert!(!wrong.stderr.contains("wrong/secret"), "{}", wrong.stderr);
    with(SECRET).ok();

    let text = format!(
        "[default]\naws_access_key_id = x\naws_secret_access_key = y\n\n[up]\n\
         aws_access_key_id = {ACCESS}\naws_secret_access_key = {SECRET}\n"
    );
    machine.write("/root/.aws/credentials", text);
    copy("").fails();
    copy("&profile=up").ok();
    copy("").env("AWS_PROFILE", "up").ok();
    let absent = copy("&profile=absent").fails();
    assert!(absent.stderr.contains("there is no profile `absent`"), "{}", absent.stderr);
}

/// Something to copy, and a bucket to copy it to that asks for keys.
struct Asking {
    built: Built,
    server: S3Server,
}

impl Asking {
    fn new() -> Option<Self> {
        let (world, server) = (World::open()?, S3Server::with_keys(ACCESS, SECRET)?);
        server.bucket("cache");
        Some(Self { built: sender(&world), server })
    }

    fn copy(&self, parameters: &str) -> MachineCommand {
        let to = address(&self.server, "cache", parameters);
        ferry(&self.built.machine, ["copy", &self.built.top, "--to", &to]).online()
    }
}

/// Keys as the hosts of machines and containers give them, which hold until then.
fn given(secret: &str, until: &str) -> String {
    format!(
        r#"{{"Code":"Success","AccessKeyId":"{ACCESS}","SecretAccessKey":"{secret}","Token":"t","Expiration":"{until}"}}"#
    )
}

const LATER: &str = "2999-01-01T00:00:00Z";

#[test]
fn a_machine_with_a_role_has_keys_and_one_without_asks_as_nobody() {
    let Some(asking) = Asking::new() else { return };
    let host = Origin::start();
    let below = "/latest/meta-data/iam/security-credentials/";
    let copy = || asking.copy("").env("AWS_EC2_METADATA_SERVICE_ENDPOINT", host.url());
    let give_token = || {
        let token = Answer::Status("200 OK", Vec::new(), b"session".to_vec());
        host.answer_next("/latest/api/token", token);
    };
    // Without a role, access is denied to nobody in particular.
    give_token();
    let denied = copy().fails();
    assert!(denied.stderr.contains("S3 answers 403 AccessDenied"), "{}", denied.stderr);
    assert_eq!(host.requests_for(below), 1);

    host.serve(below, "builder");
    host.serve(&format!("{below}builder"), given(SECRET, LATER));
    give_token();
    // A proxy has nothing to do with it.
    copy().env("http_proxy", "http://127.0.0.1:1").env("no_proxy", "127.0.0.1").ok();
    assert_eq!(host.requests_for(&format!("{below}builder")), 1);

    // One that gives none is no file that is not there.
    give_token();
    host.answer_next(below, Answer::Status("403 Forbidden", Vec::new(), Vec::new()));
    let none = copy().fails();
    assert!(none.stderr.contains("there are no keys to sign requests with"), "{}", none.stderr);
    let before = host.requests();
    asking.copy("").env("AWS_EC2_METADATA_DISABLED", "true").fails();
    assert_eq!(host.requests(), before);
}

#[test]
fn the_host_of_a_container_is_asked_for_keys_and_again_before_they_cease_to_hold() {
    let Some(asking) = Asking::new() else { return };
    let host = Origin::start();
    let copy = |path: &str| {
        let uri = format!("{}{path}", host.url());
        asking.copy("").env("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri)
    };
    host.serve("/later", given(SECRET, LATER));
    copy("/later").ok();
    copy("/later").env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "token").ok();
    assert_eq!(host.requests_for("/later"), 2);
    asking.built.machine.write("/data/token", "token\n");
    copy("/later").env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/data/token").ok();
    let absent = copy("/later").env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/data/x").fails();
    assert!(absent.stderr.contains("cannot read /data/x"), "{}", absent.stderr);
    host.serve("/over", given(SECRET, "2001-01-01T00:00:00Z"));
    copy("/over").ok();
    assert!(host.requests_for("/over") > 1);

    let absent = copy("/absent").fails();
    let said = "there are no keys to sign requests with: GET";
    assert!(absent.stderr.contains(said) && absent.stderr.contains("/absent"), "{}", absent.stderr);
    host.serve("/broken", given(SECRET, LATER).replace("SecretAccessKey", "Secret"));
    let broken = copy("/broken").fails();
    assert!(broken.stderr.contains("answers with no keys"), "{}", broken.stderr);
    assert!(!broken.stderr.contains(SECRET), "{}", broken.stderr);
    let elsewhere = asking.copy("").env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://h.test/x");
    let elsewhere = elsewhere.fails();
    assert!(elsewhere.stderr.contains("keys are asked for by https"), "{}", elsewhere.stderr);
}

#[test]
fn a_command_of_a_profile_prints_keys_and_what_is_not_understood_is_told_by_its_name() {
    let Some(asking) = Asking::new() else { return };
    let machine = &asking.built.machine;
    let printed = given(SECRET, LATER).replace("Token", "SessionToken");
    machine.write("/data/print", format!("#!/bin/sh\n[ $1 = keys ] && echo '{printed}'\n"));
    machine.write(
        "/root/.aws/config",
        "[default]\nsso_session = x\n[profile print]\ncredential_process = sh /data/print keys\n\
         [profile fails]\ncredential_process = sh /data/print nothing\n[profile role]\n\
         role_arn = arn:x\nsource_profile = print\n",
    );
    asking.copy("&profile=print").ok();
    asking.copy("").env("AWS_PROFILE", "print").ok();
    let fails = asking.copy("&profile=fails").fails();
    assert!(fails.stderr.contains("the `credential_process` `sh …`"), "{}", fails.stderr);
    for (command, profile, way) in [
        (asking.copy("&profile=role"), "role", "role_arn"),
        (asking.copy("").env("AWS_PROFILE", "role"), "role", "role_arn"),
        // Where nobody has named it, a bucket that everybody may read is read all the same.
        (asking.copy(""), "default", "sso_session"),
    ] {
        let told = command.fails().stderr;
        let said = format!("the profile `{profile}` has `{way}`, which is not understood here");
        assert!(told.contains(&said), "{told}");
        assert!(told.contains(&format!("export-credentials --profile {profile}")), "{told}");
    }
}
