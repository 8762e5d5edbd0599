//! What README.md and docs/client.md show, against a brick that runs (`firebrick up`):
//! `cargo run -p firebrick-client --example first_steps [HOST:PORT,..]`

use firebrick_client::{Answer, Client, Direct, DirectOptions, Error, Op, Reply};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let addresses = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let done = match first_steps(&addresses).await {
        Ok(()) => direct(&addresses),
        Err(error) => Err(error),
    };
    if let Err(error) = done {
        eprintln!("first_steps: {error}");
        std::process::exit(1);
    }
}

async fn first_steps(addresses: &str) -> Result<(), Error> {
    let client = Client::connect(addresses).await?;
    let carts = client.table("default").await?;

    let version = carts.put("cart:7", "three bricks").await?;
    let value = carts.get("cart:7").await?.expect("just stored");
    assert_eq!(value.bytes, b"three bricks");
    assert_eq!(value.version, version);
    carts.remove("cart:7").await?;

    let visits = carts.increment("visits", 1).await?; // exactly once, also when the connection breaks
    println!("visits: {visits}");

    carts.put("stock", "4").await?;
    loop {
        let old = carts.get("stock").await?.expect("there is stock");
        let left = String::from_utf8_lossy(&old.bytes).parse::<u32>().expect("a number") - 1;
        match carts.put_if_version("stock", left.to_string(), old.version).await {
            Ok(_) => break println!("stock: {left}"),
            Err(Error::VersionMismatch { .. }) => {} // somebody was faster
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Pipelined on one thread, without a runtime.
fn direct(addresses: &str) -> Result<(), Error> {
    let mut direct = Direct::connect(addresses, &DirectOptions::default())?;
    let table = direct.table("default")?;
    for n in 0..64u64 {
        direct.submit(table, &n.to_le_bytes(), Op::Get, n)?; // n comes back as the token
    }
    let mut found = 0;
    while direct.in_flight() > 0 {
        direct.poll(&mut |_token: u64, result: Result<Reply<'_>, Error>| match result {
            Ok(Reply::Answer(Answer::Value { .. })) => found += 1, // borrowed from the receive buffer
            Ok(_) => {}
            Err(error) => eprintln!("{error}"),
        })?;
    }
    println!("{found} of 64 numbered keys have a value");
    Ok(())
}
