//! `credgate env`: the variables that point a program at a running proxy.

use std::ffi::OsStr;
use std::fmt::Write as _;

use super::{DONE, Failure, say};
use crate::cli::{Env, EnvFormat};
use crate::environment::{self, CaFiles, Variables};
use crate::secret::process_environment;

pub(super) fn run(arguments: &Env) -> Result<u8, Failure> {
    let compiled = arguments.config.request().load(&process_environment)?;
    let listen = compiled.settings.proxy.listen;
    if listen.port() == 0 {
        return Err(Failure::new(
            "proxy.listen has port 0: only the running proxy knows its port\ngive it a port of its own",
        ));
    }
    let ca = compiled.settings.ca.dir.as_ref();
    let ca = ca.map(|dir| CaFiles { ca: dir.join("ca.pem"), bundle: dir.join("bundle.pem") });
    let variables = environment::pointing_at(listen, &compiled.policy, ca.as_ref(), &process_environment);
    say(&print(&variables, arguments.format))?;
    Ok(DONE)
}

fn print(variables: &Variables, format: EnvFormat) -> String {
    let pairs = variables.iter().map(|(name, value)| (text(name), text(value)));
    match format {
        EnvFormat::Sh => pairs.fold(String::new(), |mut all, (name, value)| {
            let _ = writeln!(all, "export {name}='{}'", value.replace('\'', r"'\''"));
            all
        }),
        EnvFormat::Dotenv => pairs.fold(String::new(), |mut all, (name, value)| {
            let _ = writeln!(all, "{name}=\"{}\"", value.replace('\\', r"\\").replace('"', "\\\""));
            all
        }),
        EnvFormat::Json => {
            let object: serde_json::Map<String, serde_json::Value> =
                pairs.map(|(name, value)| (name, value.into())).collect();
            format!("{:#}\n", serde_json::Value::Object(object))
        }
    }
}

fn text(value: &OsStr) -> String {
    value.to_string_lossy().into_owned()
}
