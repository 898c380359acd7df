//! The name servers of resolv.conf, asked as the C library asks them: the first one's word counts, the next one is asked
//! when it fails or says nothing, and names are completed by the search list (resolv.conf(5)).

use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, NoRecords, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, Record, RecordType},
    },
    system_conf::parse_resolv_conf,
};
use tokio::time::{Instant, sleep};

use super::{
    answer::{Answer, Missing, Why, found},
    service::Told,
};

/// Name servers that count, as for the C library (`MAXNS`).
const MOST: usize = 3;
/// Head start of a name server over the next one.
const HEAD_START: Duration = Duration::from_secs(1);
/// Time for which a server that let its head start pass gets none.
const REMEMBERED: Duration = Duration::from_secs(30);

/// The name servers, and how names are completed.
#[derive(Debug)]
pub(super) struct Servers {
    list: Vec<Server>,
    search: Vec<Name>,
    /// Dots from which on a name is tried as it is before it is completed.
    ndots: usize,
    /// Each question begins with another server.
    rotate: bool,
    next: AtomicUsize,
}

/// A family of addresses.
#[derive(Debug, Clone, Copy)]
pub(super) enum Family {
    V4,
    V6,
}

#[derive(Debug)]
struct Server {
    v4: TokioResolver,
    v6: TokioResolver,
    silence: Silence,
}

/// Until when a server gets no head start.
#[derive(Debug)]
struct Silence {
    begun: Instant,
    /// Milliseconds since then.
    until: AtomicU64,
}

impl Servers {
    /// The servers of a resolv.conf.
    ///
    /// # Errors
    ///
    /// It names none, or cannot be understood.
    pub(super) fn read(text: &[u8]) -> Result<Self, NetError> {
        let (config, options) = parse_resolv_conf(text)?;
        let (domain, search, servers) = config.into_parts();
        let list = servers.iter().take(MOST).map(|server| Server::new(server, &options));
        Ok(Self {
            list: list.collect::<Result<_, _>>()?,
            search: if search.is_empty() { domain.into_iter().collect() } else { search },
            ndots: options.ndots,
            rotate: rotates(text),
            next: AtomicUsize::new(0),
        })
    }

    /// The names to ask for, in order, for one as it was written.
    ///
    /// # Errors
    ///
    /// It is no name: a label is too long.
    pub(super) fn candidates(&self, name: &str) -> Result<Vec<Name>, String> {
        candidates(name, &self.search, self.ndots)
    }

    /// The addresses of a complete name.
    pub(super) async fn ask(&self, name: &Name, family: Family) -> Answer {
        in_turn(self.in_order().map(|server| (server.ask(name, family), &server.silence)).collect()).await
    }

    /// The SRV records of a complete name.
    pub(super) async fn ask_service(&self, name: &Name) -> Result<(Vec<Told>, Duration), Missing> {
        in_turn(self.in_order().map(|server| (server.ask_service(name), &server.silence)).collect()).await
    }

    fn in_order(&self) -> impl Iterator<Item = &Server> {
        let first = if self.rotate { self.next.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let count = self.list.len();
        (0..count).filter_map(move |index| self.list.get((first + index) % count))
    }
}

impl Server {
    fn new(server: &NameServerConfig, options: &ResolverOpts) -> Result<Self, NetError> {
        let resolver = |strategy| {
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server.clone()]);
            let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            // `Name` is the cache.
            let all = builder.options_mut();
            *all = options.clone();
            all.ip_strategy = strategy;
            all.cache_size = 0;
            all.use_hosts_file = ResolveHosts::Never;
            builder.build()
        };
        let (v4, v6) = (resolver(LookupIpStrategy::Ipv4Only)?, resolver(LookupIpStrategy::Ipv6Only)?);
        Ok(Self { v4, v6, silence: Silence::new() })
    }

    async fn ask(&self, name: &Name, family: Family) -> Answer {
        let resolver = match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        };
        match resolver.lookup_ip(name.clone()).await {
            Ok(answer) => {
                let ttl = answer.valid_until().saturating_duration_since(std::time::Instant::now());
                Ok((found(answer.iter().collect())?, ttl))
            }
            Err(error) => Err(Missing { why: why(&error), reason: error.to_string() }),
        }
    }

    async fn ask_service(&self, name: &Name) -> Result<(Vec<Told>, Duration), Missing> {
        let told = |record: &Record| {
            let RData::SRV(srv) = &record.data else { return None };
            Some((srv.priority, srv.weight, srv.port, host(&srv.target)?))
        };
        // Either of the two does.
        match self.v4.lookup(name.clone(), RecordType::SRV).await {
            Ok(answer) => {
                let ttl = answer.valid_until().saturating_duration_since(std::time::Instant::now());
                if !answer.answers().iter().any(|record| matches!(record.data, RData::SRV(_))) {
                    return Err(Missing { why: Why::Absent, reason: "the name has no SRV records".to_owned() });
                }
                Ok((answer.answers().iter().filter_map(told).collect(), ttl))
            }
            Err(error) => Err(Missing { why: why(&error), reason: error.to_string() }),
        }
    }
}

/// The host of an SRV record, empty for the root (RFC 2782, "Target"); `None` where it is no name that can be asked for.
fn host(name: &Name) -> Option<String> {
    let labels: Option<Vec<&str>> = name.iter().map(|label| std::str::from_utf8(label).ok()).collect();
    let host = labels?.join(".").to_ascii_lowercase();
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (host.bytes().all(usual) && host.split('.').count() == usize::from(name.num_labels()).max(1)).then_some(host)
}

/// SERVFAIL counts as no records, too, but says nothing of the name.
fn why(error: &NetError) -> Why {
    if let NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, .. })) = error
        && matches!(response_code, ResponseCode::NoError | ResponseCode::NXDomain)
    {
        return Why::Absent;
    }
    if matches!(error, NetError::Timeout) { Why::Silent } else { Why::Failed }
}

/// The names that one written as `name` may stand for: itself where it ends in a dot.
fn candidates(name: &str, search: &[Name], ndots: usize) -> Result<Vec<Name>, String> {
    let labels = |name: &str| Name::from_labels(name.split('.').map(str::as_bytes)).map_err(|error| error.to_string());
    let complete = |mut name: Name| {
        name.set_fqdn(true);
        name
    };
    // Names of hosts have letters, digits and hyphens, but those that people use have underscores, and hyphens in front.
    if let Some(absolute) = name.strip_suffix('.') {
        return Ok(vec![complete(labels(absolute)?)]);
    }
    let mut relative = labels(name)?;
    relative.set_fqdn(false);
    let as_it_is = complete(relative.clone());
    // What becomes too long is not asked for.
    let completed = search.iter().filter_map(|domain| relative.clone().append_domain(domain).ok()).map(complete);
    let as_it_is_first = name.matches('.').count() >= ndots;
    let front = as_it_is_first.then(|| as_it_is.clone());
    let mut names: Vec<Name> = Vec::new();
    for candidate in front.into_iter().chain(completed).chain([as_it_is]) {
        if !names.contains(&candidate) {
            names.push(candidate);
        }
    }
    Ok(names)
}

/// Returns whether a resolv.conf has the option `rotate`.
fn rotates(text: &[u8]) -> bool {
    String::from_utf8_lossy(text).lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("options") && words.any(|word| word == "rotate")
    })
}

impl Silence {
    fn new() -> Self {
        Self { begun: Instant::now(), until: AtomicU64::new(0) }
    }

    fn head_start(&self) -> Duration {
        if self.millis() < self.until.load(Ordering::Relaxed) { Duration::ZERO } else { HEAD_START }
    }

    fn began(&self) {
        let long = u64::try_from(REMEMBERED.as_millis()).unwrap_or(u64::MAX);
        self.until.store(self.millis().saturating_add(long), Ordering::Relaxed);
    }

    fn ended(&self) {
        self.until.store(0, Ordering::Relaxed);
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// One server being asked.
type Attempt<'a, T> = (Pin<Box<dyn Future<Output = Result<T, Missing>> + Send + 'a>>, &'a Silence);

/// The answer of the first server that knows whether the name has addresses. Each has a head start over the next one, which
/// is asked at once when it fails.
async fn in_turn<'a, T, F>(servers: Vec<(F, &'a Silence)>) -> Result<T, Missing>
where
    F: Future<Output = Result<T, Missing>> + Send + 'a,
{
    let mut waiting = servers.into_iter();
    let mut running: Vec<Attempt<'a, T>> = Vec::with_capacity(waiting.len());
    let mut last = Err(Missing { why: Why::Failed, reason: "there is no name server".to_owned() });
    loop {
        let mut head_start = HEAD_START;
        if let Some((server, silence)) = waiting.next() {
            head_start = silence.head_start();
            running.push((Box::pin(server), silence));
        }
        tokio::select! {
            (answer, silence) = std::future::poll_fn(|cx| poll_any(&mut running, cx)), if !running.is_empty() => match answer {
                Ok(_) | Err(Missing { why: Why::Absent, .. }) => {
                    silence.ended();
                    return answer;
                }
                Err(_) => last = answer,
            },
            () = sleep(head_start), if waiting.len() > 0 => {
                if let Some((_, silence)) = running.last().filter(|_| !head_start.is_zero()) {
                    silence.began();
                }
            }
            else => return last,
        }
    }
}

/// Ready when one server has answered or failed, which is then gone from `running`.
fn poll_any<'a, T>(running: &mut Vec<Attempt<'a, T>>, cx: &mut Context<'_>) -> Poll<(Result<T, Missing>, &'a Silence)> {
    for (index, (attempt, silence)) in running.iter_mut().enumerate() {
        if let Poll::Ready(answer) = attempt.as_mut().poll(cx) {
            let silence = *silence;
            drop(running.remove(index));
            return Poll::Ready((answer, silence));
        }
    }
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    #[test]
    fn names_are_completed_as_the_c_library_does() {
        let search = [name("a.test."), name("b.test.")];
        for (row, written, search, ndots, expected) in [
            ("few dots", "web", &search[..], 1, vec!["web.a.test.", "web.b.test.", "web."]),
            ("enough dots", "web.x", &search, 1, vec!["web.x.", "web.x.a.test.", "web.x.b.test."]),
            ("Kubernetes", "web.x", &search, 5, vec!["web.x.a.test.", "web.x.b.test.", "web.x."]),
            ("ndots:0", "web", &search, 0, vec!["web.", "web.a.test.", "web.b.test."]),
            ("a dot at the end", "web.", &search, 1, vec!["web."]),
            ("no search list", "web", &[], 1, vec!["web."]),
            ("the root", "web", &[Name::root()], 1, vec!["web."]),
        ] {
            let names: Vec<String> = candidates(written, search, ndots).unwrap().iter().map(Name::to_ascii).collect();
            assert_eq!(names, expected, "{row}");
        }
    }

    #[test]
    fn names_of_any_shape_can_be_asked_for() {
        for written in ["my_app", "-a.example", "a-.example", "_srv.example", "plain.example"] {
            let names = candidates(written, &[], 1).unwrap();
            let labels: Vec<_> = names[0].iter().collect();
            assert_eq!(labels.join(&b'.'), written.as_bytes());
            assert!(names[0].is_fqdn());
        }
        assert!(candidates(&"a".repeat(64), &[], 1).is_err());
        let long = [name(&format!("{}.test.", ["a".repeat(60).as_str(); 4].join(".")))];
        assert_eq!(candidates("web.example", &long, 2).unwrap(), [name("web.example.")], "too long a name is left out");
    }

    #[tokio::test]
    async fn a_resolv_conf_is_read_as_the_c_library_reads_it() {
        let read = |text: &str| Servers::read(text.as_bytes());
        let servers = read(
            "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 2001:db8::3\nnameserver 192.0.2.4\ndomain x.test\n\
             search a.test b.test\noptions ndots:2 rotate\n",
        )
        .unwrap();
        assert_eq!((servers.list.len(), servers.ndots, servers.rotate), (3, 2, true));
        assert_eq!(servers.search.iter().map(Name::to_ascii).collect::<Vec<_>>(), ["a.test", "b.test"]);
        let domain = read("nameserver 192.0.2.1\ndomain x.test\n").unwrap();
        assert_eq!(domain.search.iter().map(Name::to_ascii).collect::<Vec<_>>(), ["x.test"]);
        assert!(!domain.rotate);
        assert!(read("search a.test\n").is_err(), "no name server");
    }

    /// What a server does: after so many milliseconds, its answer.
    async fn server(after: u64, answer: Result<u8, Why>) -> Answer {
        sleep(Duration::from_millis(after)).await;
        match answer {
            Ok(last) => Ok((vec![std::net::Ipv4Addr::new(192, 0, 2, last).into()], Duration::ZERO)),
            Err(why) => Err(Missing { why, reason: format!("{why:?} after {after}") }),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_server_is_asked_when_one_fails_or_is_silent() {
        const NEVER: u64 = 3_600_000;
        for (row, servers, expected, at_most) in [
            ("the first answers", [(10, Ok(1)), (0, Ok(2))], Ok(1), 10),
            ("the first is slow, but known for nothing", [(900, Ok(1)), (0, Ok(2))], Ok(1), 900),
            ("the first says that there is nothing", [(10, Err(Why::Absent)), (0, Ok(2))], Err(Why::Absent), 10),
            ("the first fails", [(10, Err(Why::Failed)), (10, Ok(2))], Ok(2), 20),
            ("the first is silent", [(NEVER, Ok(1)), (10, Ok(2))], Ok(2), 1010),
            ("the first is later than the second is silent", [(2000, Ok(1)), (NEVER, Ok(2))], Ok(1), 2000),
            ("both fail", [(10, Err(Why::Failed)), (10, Err(Why::Silent))], Err(Why::Silent), 20),
        ] {
            let silence = [Silence::new(), Silence::new()];
            let begun = Instant::now();
            let [(first, a), (second, b)] = servers;
            let answer = in_turn(vec![(server(first, a), &silence[0]), (server(second, b), &silence[1])]).await;
            let told = answer.map(|(addresses, _)| addresses).map_err(|missing| missing.why);
            assert_eq!(told, expected.map(|last| vec![std::net::Ipv4Addr::new(192, 0, 2, last).into()]), "{row}");
            let took = begun.elapsed();
            assert!(took <= Duration::from_millis(at_most + 5), "{row}: {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_silent_is_not_waited_for_again_for_a_while() {
        const NEVER: u64 = 3_600_000;
        let silence = [Silence::new(), Silence::new()];
        let ask = |first| in_turn(vec![(server(first, Ok(1)), &silence[0]), (server(10, Ok(2)), &silence[1])]);
        for (row, pause, first, expected) in [
            ("at first", 0, NEVER, 1010),
            ("remembered", 0, NEVER, 10),
            ("forgotten", 31_000, NEVER, 1010),
            ("it answers again, as fast as the other", 0, 5, 5),
            ("and is waited for again", 0, 500, 500),
        ] {
            sleep(Duration::from_millis(pause)).await;
            let begun = Instant::now();
            ask(first).await.unwrap();
            let took = begun.elapsed().as_millis();
            assert!((expected..=expected + 5).contains(&took), "{row}: {took} ms");
        }
    }
}
