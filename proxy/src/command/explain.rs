//! `credgate explain`: the decision for one URL, by the code that the proxy calls.

use std::fmt::Write as _;

use http::{Method, Request};

use super::{DONE, FAILED, Failure, say};
use crate::cli::Explain;
use crate::http::target;
use crate::policy::{Decision, HostRule, Refusal, RequestFacts, Verdict};
use crate::secret::process_environment;
use crate::upstream::resolve::Resolver;

pub(super) fn run(arguments: &Explain) -> Result<u8, Failure> {
    let compiled = arguments.config.request().load(&process_environment)?;
    let method = Method::from_bytes(arguments.method.as_bytes())
        .map_err(|_| Failure::new(format!("{:?} is not a method", arguments.method)))?;
    let url = if arguments.url.contains("://") {
        arguments.url.clone()
    } else {
        format!("https://{}", arguments.url)
    };
    let request = Request::builder().method(&method).uri(&url).body(());
    let request = request.map_err(|error| Failure::new(format!("{url}: it is not a URL: {error}")))?;
    let mut text = String::new();
    let outcome = target::absolute(&request).and_then(|(destination, secure)| {
        let _ = writeln!(text, "destination: {destination} over {}", if secure { "https" } else { "http" });
        let facts = RequestFacts { method: &method, path: request.uri().path(), secure };
        let rule = |rule: &HostRule| format!("[hosts.\"{}\"] at {}", rule.key(), rule.origin);
        match compiled.policy.decide(&destination) {
            Decision::Refuse(refusal) => return Err(refusal),
            Decision::Tunnel(None) => text.push_str("rule:        default = \"tunnel\"\n"),
            Decision::Tunnel(Some(host)) => {
                let _ = writeln!(text, "rule:        {}", rule(host));
            }
            Decision::Intercept(host) => {
                let _ = writeln!(text, "rule:        {}", rule(host));
                explain_verdict(host.check(facts), secure, host, &mut text)?;
            }
        }
        Ok(destination)
    });
    let outcome = outcome.and_then(|destination| {
        let resolver = Resolver::new(&compiled.settings.upstream);
        addresses(resolver.map_err(|error| error.to_string()), &destination, &mut text)
    });
    let status = match outcome {
        Ok(()) => {
            text.insert_str(0, "permitted\n");
            DONE
        }
        Err(refusal) => {
            text.insert_str(0, "refused\n");
            let _ = writeln!(text, "reason:      {refusal}");
            if let Some(remedy) = refusal.remedy() {
                let _ = writeln!(text, "remedy:      {remedy}");
            }
            FAILED
        }
    };
    say(&text)?;
    Ok(status)
}

fn explain_verdict(
    verdict: Verdict,
    secure: bool,
    rule: &HostRule,
    text: &mut String,
) -> Result<(), Refusal> {
    let credential = match verdict {
        Verdict::Refuse(refusal) => return Err(refusal),
        Verdict::Forward(Some(injection)) => injection.credential().name.to_string(),
        Verdict::Forward(None) if !secure && rule.credentials().next().is_some() => {
            "none: credentials leave over https only".into()
        }
        Verdict::Forward(None) => "none".into(),
    };
    let _ = writeln!(text, "action:      intercept\ncredential:  {credential}");
    Ok(())
}

/// Addresses are looked up only for what is permitted. A name that does not resolve here may resolve elsewhere: that
/// is shown, not judged; an address that may not be dialled is a refusal.
fn addresses(
    resolver: Result<Resolver, String>,
    destination: &crate::policy::Destination,
    text: &mut String,
) -> Result<(), Refusal> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let resolved = match (resolver, runtime) {
        (Ok(resolver), Ok(runtime)) => runtime.block_on(resolver.resolve(destination)),
        (Err(error), _) => {
            let _ = writeln!(text, "addresses:   {error}");
            return Ok(());
        }
        (_, Err(error)) => {
            let _ = writeln!(text, "addresses:   {error}");
            return Ok(());
        }
    };
    match resolved {
        Ok(vetted) => {
            let list: Vec<String> = vetted.addresses().map(|address| address.ip().to_string()).collect();
            let _ = writeln!(text, "addresses:   {}", list.join(", "));
            Ok(())
        }
        Err(Refusal::Upstream { failure, .. }) => {
            let _ = writeln!(text, "addresses:   {failure}");
            Ok(())
        }
        Err(refusal) => Err(refusal),
    }
}
