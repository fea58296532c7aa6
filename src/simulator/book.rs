//! The simulator's state and its every decision: which behaviour a submit gets and what a poll is told.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use secrecy::ExposeSecret;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{
    Behaviour, LedgerEntry, SimulatorOptions, Stats, TaskStatus,
    job::{Job, PollAnswer},
};

/// Of so many polls it is known when they arrived.
const REMEMBERED_POLLS: usize = 100_000;

/// What a random number is drawn for; part of its seed, so that no draw depends on how many went before.
enum Purpose {
    Behaviour,
    Job,
    SubmitLatency,
    Poll(u64),
}

/// What will be done with a submit.
#[derive(Debug)]
pub(super) struct SubmitPlan {
    pub(super) behaviour: Behaviour,
    pub(super) latency: Duration,
    /// The id of the job, if the submit was accepted.
    pub(super) upstream_id: Option<String>,
}

/// A poll that is under way.
#[derive(Debug)]
pub(super) struct PollPlan {
    pub(super) latency: Duration,
    /// Which poll of its job it is, the first being 1.
    pub(super) number: u64,
}

/// Everything that the simulator knows.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) options: SimulatorOptions,
    pub(super) stats: Stats,
    /// When the last polls arrived, in order, whatever they asked for.
    pub(super) polled_at: VecDeque<DateTime<Utc>>,
    jobs: Vec<Job>,
    places: HashMap<String, usize>,
}

impl Book {
    pub(super) fn new(options: SimulatorOptions) -> Self {
        Self { options, stats: Stats::default(), polled_at: VecDeque::new(), jobs: Vec::new(), places: HashMap::new() }
    }

    /// The status with which a request is refused for the token that it brought; none: it may go on.
    pub(super) fn refusal(&self, token: Option<&str>) -> Option<u16> {
        if self.options.token.as_ref().is_some_and(|wanted| token != Some(wanted.expose_secret())) {
            return Some(401);
        }
        if self.options.refused_tokens.is_empty() {
            return None;
        }
        let hash = hex::encode(Sha256::digest(token.unwrap_or_default().as_bytes()));
        self.options.refused_tokens.get(&hash[..8]).copied()
    }

    /// Takes a submit: counts it, chooses its behaviour and, if that accepts it, writes it into the ledger.
    /// `refusal` is the status of a submit that the choice does not come to.
    pub(super) fn submit(&mut self, refusal: Option<u16>, request_id: Option<&str>, body: Value) -> SubmitPlan {
        self.stats.arrivals += 1;
        let arrival = self.stats.arrivals;
        let behaviour = match refusal {
            Some(status) => Behaviour::status(status),
            None => self.choose(arrival, request_id, &body),
        };
        let latency = self.options.submit_latency.draw(&mut self.random(arrival, &Purpose::SubmitLatency));
        let upstream_id = behaviour.accepts().then(|| self.accept(arrival, request_id, body, behaviour.clone()));
        SubmitPlan { behaviour, latency: Duration::from_millis(latency), upstream_id }
    }

    fn random(&self, arrival: u64, purpose: &Purpose) -> StdRng {
        let purpose = match purpose {
            Purpose::Behaviour => 0,
            Purpose::Job => 1,
            Purpose::SubmitLatency => 2,
            Purpose::Poll(number) => 3 + number,
        };
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.options.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&arrival.to_le_bytes());
        seed[16..24].copy_from_slice(&purpose.to_le_bytes());
        StdRng::from_seed(seed)
    }

    fn choose(&mut self, arrival: u64, request_id: Option<&str>, body: &Value) -> Behaviour {
        if let Some(behaviour) = self.options.script.get(&arrival) {
            return behaviour.clone();
        }
        let mut rules = self.options.rules.iter_mut();
        if let Some(rule) = rules.find(|rule| rule.fits(request_id, body)) {
            rule.used += 1;
            return rule.behaviour.clone();
        }
        if self.options.rates.is_empty() {
            return Behaviour::Success;
        }
        let mut left: f64 = self.random(arrival, &Purpose::Behaviour).random();
        for rate in &self.options.rates {
            if left < rate.probability {
                return rate.behaviour.clone();
            }
            left -= rate.probability;
        }
        Behaviour::Success
    }

    fn accept(&mut self, arrival: u64, request_id: Option<&str>, body: Value, behaviour: Behaviour) -> String {
        let mut random = self.random(arrival, &Purpose::Job);
        let upstream_id = Uuid::now_v7().to_string();
        let is_in_flight = behaviour != Behaviour::Lost;
        self.places.insert(upstream_id.clone(), self.jobs.len());
        self.jobs.push(Job {
            entry: LedgerEntry {
                arrival,
                upstream_id: upstream_id.clone(),
                request_id: request_id.map(str::to_owned),
                accepted_at: Utc::now(),
                body,
                behaviour,
                answered: false,
                polls: 0,
                last_polled_at: None,
                task_status: None,
            },
            pending_polls: self.options.pending_polls.draw(&mut random),
            duration: Duration::from_millis(self.options.duration.draw(&mut random)),
            accepted: Instant::now(),
            polls_before: 0,
            empty_answers: 0,
            is_in_flight,
        });
        self.stats.accepted += 1;
        if is_in_flight {
            self.stats.in_flight += 1;
            self.stats.max_in_flight = self.stats.max_in_flight.max(self.stats.in_flight);
        }
        upstream_id
    }

    /// Notes how an accepted submit ended: its answer was written, or its connection ended first.
    pub(super) fn submit_ended(&mut self, upstream_id: &str, answered: bool) {
        let Some(&place) = self.places.get(upstream_id) else {
            return;
        };
        let entry = &mut self.jobs[place].entry;
        entry.answered = answered;
        // Without the id nobody can poll the job.
        let tells_id = !matches!(entry.behaviour, Behaviour::Status { .. } | Behaviour::Unreadable { .. });
        if !answered {
            self.stats.unanswered += 1;
        }
        if !answered || !tells_id {
            self.land(place);
        }
    }

    fn land(&mut self, place: usize) {
        if std::mem::take(&mut self.jobs[place].is_in_flight) {
            self.stats.in_flight -= 1;
        }
    }

    /// Takes a poll: counts it and says how long its answer takes.
    pub(super) fn poll(&mut self, upstream_id: &str, is_admitted: bool) -> PollPlan {
        self.stats.polls += 1;
        let now = Utc::now();
        if self.polled_at.len() == REMEMBERED_POLLS {
            self.polled_at.pop_front();
        }
        self.polled_at.push_back(now);
        let mut arrival = 0;
        let mut number = self.stats.polls;
        // Only ids that exist are counted one by one: a client's errors must not grow the table.
        if let Some(&place) = self.places.get(upstream_id) {
            *self.stats.polls_by_upstream_id.entry(upstream_id.to_owned()).or_default() += 1;
            let entry = &mut self.jobs[place].entry;
            if is_admitted {
                entry.polls += 1;
                entry.last_polled_at = Some(now);
            }
            (arrival, number) = (entry.arrival, entry.polls);
        }
        let latency = self.options.poll_latency.draw(&mut self.random(arrival, &Purpose::Poll(number)));
        PollPlan { latency: Duration::from_millis(latency), number }
    }

    /// What the poll with this number is told now.
    pub(super) fn answer_poll(&mut self, upstream_id: &str, number: u64) -> PollAnswer {
        let Some(&place) = self.places.get(upstream_id) else {
            return PollAnswer::NotFound;
        };
        let job = &mut self.jobs[place];
        let number = number.saturating_sub(job.polls_before);
        let answer = job.tell(number);
        if let PollAnswer::Status { status, .. } = &answer {
            job.entry.task_status = Some(*status);
            if status.is_terminal() {
                self.land(place);
            }
        }
        answer
    }

    /// Gives an accepted job another behaviour, counting its polls anew; false if there is no such job.
    pub(super) fn set_behaviour(&mut self, upstream_id: &str, behaviour: Behaviour) -> bool {
        let Some(&place) = self.places.get(upstream_id) else {
            return false;
        };
        if behaviour == Behaviour::Lost {
            self.land(place);
        }
        let job = &mut self.jobs[place];
        job.polls_before = job.entry.polls;
        job.empty_answers = 0;
        job.entry.behaviour = behaviour;
        true
    }

    /// The ledger from this arrival number on, in order of arrival.
    pub(super) fn ledger(&self, from: u64) -> Vec<LedgerEntry> {
        let start = self.jobs.partition_point(|job| job.entry.arrival < from);
        self.jobs[start..].iter().map(|job| job.entry.clone()).collect()
    }

    /// The body of a job that has been reported as done, for its picture.
    pub(super) fn finished_body(&self, upstream_id: &str) -> Option<Value> {
        let entry = &self.jobs[*self.places.get(upstream_id)?].entry;
        (entry.task_status == Some(TaskStatus::Success)).then(|| entry.body.clone())
    }
}
