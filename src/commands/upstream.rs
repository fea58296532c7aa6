//! Which upstream a run speaks to: the configured one, or, when there is no token, the simulator inside the command itself.

use std::collections::BTreeMap;

use secrecy::SecretString;

use super::{effective::Effective, report::Failure};
use crate::{
    config::Settings,
    services::make_image::UpstreamClient,
    simulator::{Simulator, SimulatorOptions},
};

/// How the simulator of a run behaves.
pub(super) struct StandIn {
    /// Its options; the token is drawn here.
    pub(super) options: SimulatorOptions,
    /// Between two polls: it is quicker than what it stands in for.
    pub(super) poll_interval: &'static str,
}

/// Whether a token is configured.
pub(super) fn has_token(settings: &Settings) -> bool {
    settings.upstream.api_token.is_some() || settings.upstream.api_token_file.is_some()
}

/// Starts the simulator and points every lane at it, for this command and its workers.
pub(super) async fn stand_in(effective: &mut Effective, stand_in: StandIn) -> Result<Simulator, Failure> {
    // Random, so that nothing but our own workers is served, and never an argument.
    let token = hex::encode(rand::random::<[u8; 16]>());
    let options = SimulatorOptions { token: Some(SecretString::from(token.clone())), ..stand_in.options };
    let header = options.request_id_header.clone();
    let simulator = Simulator::start(options).await.map_err(Failure::failed)?;
    lead_to(effective, simulator.url(), token, &header, stand_in.poll_interval)?;
    Ok(simulator)
}

/// Points every lane at a simulator that stands there.
pub(super) fn lead_to(
    effective: &mut Effective,
    url: &str,
    token: String,
    request_id_header: &str,
    poll_interval: &str,
) -> Result<(), Failure> {
    effective.without_proxies();
    effective.set("upstream.api_token", token);
    effective.set("upstream.api_token_file", "");
    effective.set("upstream.token_header", "X-Token");
    effective.set("upstream.token_prefix", "");
    for (lane, settings) in Settings::defaults().map_err(Failure::failed)?.lanes {
        let mut set = |key: &str, value: &str| effective.set(&format!("lanes.{lane}.{key}"), value);
        set("base_url", url);
        set("submit_path", &settings.submit_path);
        set("poll_path", &settings.poll_path);
        set("request_id_header", request_id_header);
        set("poll_interval", poll_interval);
        set("max_polls", "600");
    }
    Ok(())
}

/// Sees that the configured upstream can be used for these lanes, before anything is stored.
pub(super) fn check(settings: &Settings, lanes: &BTreeMap<String, i32>) -> Result<(), Failure> {
    let client = UpstreamClient::new(settings).map_err(Failure::usage)?;
    for lane in lanes.keys() {
        client.lane(lane).map_err(Failure::usage)?;
    }
    Ok(())
}

/// Where the pictures come from, in one line.
pub(super) fn places(settings: &Settings, lanes: &BTreeMap<String, i32>) -> String {
    let place = |lane: &String| settings.lanes.get(lane).and_then(|lane| lane.base_url.as_ref()).map(ToString::to_string);
    let places: Vec<String> =
        lanes.iter().map(|(lane, cells)| format!("{cells} on {lane}, {}", place(lane).unwrap_or_default())).collect();
    places.join("; ")
}
