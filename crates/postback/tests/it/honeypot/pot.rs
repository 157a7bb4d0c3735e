//! The honeypot: listens at every address and several ports, and notes who came where.

use std::process::Command;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;

const PORTS: [u16; 5] = [80, 443, 22, 6379, 8080];

/// Connections are counted by the kernel's `accept`, before a byte is read.
pub(super) struct Honeypot {
    came: Arc<Mutex<Vec<String>>>,
}

impl Honeypot {
    /// Gives this namespace all of the addresses, and listens at them.
    pub(super) async fn open(addresses: &[&str]) -> Self {
        for address in addresses {
            let (family, length) = if address.contains(':') { ("-6", 128) } else { ("-4", 32) };
            // Some cannot be given to a device (multicast); those that can must be.
            let arguments = [family, "route", "add", "local", &format!("{address}/{length}"), "dev", "lo"];
            let _ = Command::new("ip").args(arguments).output().expect("it was there a moment ago");
        }
        let came = Arc::new(Mutex::new(Vec::new()));
        for port in PORTS {
            // Both families: IPv4 arrives as mapped addresses.
            let listener = TcpListener::bind(("::", port)).await.unwrap();
            let came = Arc::clone(&came);
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let at = stream.local_addr().map(|at| (at.ip().to_canonical(), at.port()));
                    let at = at.map_or_else(
                        |error| error.to_string(),
                        |at| std::net::SocketAddr::from(at).to_string(),
                    );
                    came.lock().unwrap().push(at);
                }
            });
        }
        let pot = Self { came };
        pot.prove(addresses).await;
        pot
    }

    /// Most of the addresses must lead here, or nothing would be proven by silence.
    async fn prove(&self, addresses: &[&str]) {
        let mut reached = 0;
        for address in addresses {
            let ip: std::net::IpAddr = address.parse().unwrap();
            reached += usize::from(tokio::net::TcpStream::connect((ip, 80)).await.is_ok());
        }
        println!("{reached} of {} forbidden addresses lead to the honeypot", addresses.len());
        assert!(reached * 4 > addresses.len() * 3, "too few of the addresses lead to the honeypot");
        while self.came.lock().unwrap().len() < reached {
            tokio::task::yield_now().await;
        }
        self.came.lock().unwrap().clear();
    }

    /// Where somebody came, in order.
    pub(super) fn accepted(&self) -> Vec<String> {
        self.came.lock().unwrap().clone()
    }
}
