//! The smallest Pingora proxy that is fair to Pingora: one fixed origin, a
//! keep-alive pool as large as any scenario needs, no hooks but the one that
//! names the origin, and an access log by option.
//!
//! Usage: pingora-peer LISTEN ORIGIN THREADS [ACCESS_LOG]

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::Server;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, Result};
use pingora_proxy::{http_proxy_service, ProxyHttp, Session};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Log = Arc<Mutex<BufWriter<File>>>;

struct Proxy {
    origin: HttpPeer,
    log: Option<Log>,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();
    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.origin.clone()))
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, _: &mut ()) {
        let Some(log) = &self.log else { return };
        let request = session.req_header();
        let status = session
            .response_written()
            .map_or(0, |response| response.status.as_u16());
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |t| t.as_secs_f64());
        let client = session.client_addr();
        if let Ok(mut out) = log.lock() {
            // A failed write to a log must not end the proxy.
            let _ = write!(out, "{{\"time\":{time:.3},\"client\":\"");
            if let Some(client) = client {
                let _ = write!(out, "{client}");
            }
            let _ = writeln!(
                out,
                "\",\"method\":\"{}\",\"uri\":{:?},\"status\":{status},\"bytes\":{},\"error\":{}}}",
                request.method,
                request.uri.path(),
                session.body_bytes_sent(),
                error.is_some(),
            );
        }
    }
}

fn open_log(path: &str) -> Log {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("the access log can be opened");
    let log = Arc::new(Mutex::new(BufWriter::with_capacity(64 << 10, file)));
    let flushed = log.clone();
    std::thread::spawn(move || loop {
        std::thread::sleep(Duration::from_secs(1));
        if let Ok(mut out) = flushed.lock() {
            let _ = out.flush();
        }
    });
    log
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.len() < 4 {
        eprintln!("usage: pingora-peer LISTEN ORIGIN THREADS [ACCESS_LOG]");
        std::process::exit(2);
    }
    let conf = ServerConf {
        threads: args[3].parse().expect("a number of threads"),
        // More than any scenario has at once; the default is 128.
        upstream_keepalive_pool_size: 1024,
        // End at once: the bench waits for the process.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();

    let mut origin = HttpPeer::new(args[2].as_str(), false, String::new());
    origin.options.connection_timeout = Some(Duration::from_secs(5));
    origin.options.read_timeout = Some(Duration::from_secs(60));
    origin.options.write_timeout = Some(Duration::from_secs(60));
    origin.options.idle_timeout = Some(Duration::from_secs(60));

    let log = args.get(4).map(|path| open_log(path));
    let mut service = http_proxy_service(&server.configuration, Proxy { origin, log });
    service.add_tcp(&args[1]);
    server.add_service(service);
    server.run_forever();
}
