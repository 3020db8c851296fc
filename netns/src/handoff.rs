//! A channel between the stages of a sandbox that carries messages and descriptors (unix(7), `SCM_RIGHTS`).

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::listeners::Listeners;

/// Largest message, octets: a certificate bundle takes 300 KB.
const MAX_MESSAGE: usize = 8 * 1024 * 1024;
/// Most descriptors of one message: a policy cannot name more ports.
const MAX_DESCRIPTORS: usize = 70_000;
/// Descriptors that go at once, below the kernel's 253 (`SCM_MAX_FD`).
const BATCH: usize = 200;

/// Why the other stage cannot be talked to.
#[derive(Debug, Error)]
pub enum HandoffError {
    /// It has ended.
    #[error("the other stage of the sandbox has ended")]
    Closed,
    /// The socket failed.
    #[error("the channel between the stages of the sandbox failed: {0}")]
    Socket(#[from] io::Error),
    /// It said something else.
    #[error("the stages of the sandbox do not understand each other: {0}")]
    Message(#[from] serde_json::Error),
    /// It sent more, or fewer, than it said.
    #[error("the stages of the sandbox do not understand each other: wrong size or number of descriptors")]
    Count,
}

/// One end.
#[derive(Debug)]
pub struct Channel(UnixStream);

impl Channel {
    /// Two connected ends.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (near, far) = UnixStream::pair()?;
        Ok((Self(near), far.into()))
    }

    /// The end that this process was given as its standard input.
    pub fn of_stdin() -> io::Result<Self> {
        Ok(Self(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?)))
    }

    /// Sends a message and descriptors.
    pub fn send<T: Serialize>(
        &mut self,
        message: &T,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), HandoffError> {
        let text = serde_json::to_vec(message)?;
        let (Ok(length), Ok(count)) = (u32::try_from(text.len()), u32::try_from(descriptors.len())) else {
            return Err(HandoffError::Count);
        };
        self.write(&length.to_be_bytes())?;
        self.write(&count.to_be_bytes())?;
        for batch in descriptors.chunks(BATCH) {
            self.send_batch(batch)?;
        }
        self.write(&text)
    }

    /// Receives a message and its descriptors.
    pub fn receive<T: DeserializeOwned>(&mut self) -> Result<(T, Vec<OwnedFd>), HandoffError> {
        let length = self.read_number()?;
        let count = self.read_number()?;
        if length > MAX_MESSAGE || count > MAX_DESCRIPTORS {
            return Err(HandoffError::Count);
        }
        let mut descriptors = Vec::with_capacity(count);
        while descriptors.len() < count {
            let expected = (count - descriptors.len()).min(BATCH);
            self.receive_batch(expected, &mut descriptors)?;
        }
        let mut text = vec![0; length];
        self.read(&mut text)?;
        Ok((serde_json::from_slice(&text)?, descriptors))
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), HandoffError> {
        self.0.write_all(octets).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => HandoffError::Closed,
            _ => error.into(),
        })
    }

    fn read(&mut self, octets: &mut [u8]) -> Result<(), HandoffError> {
        self.0.read_exact(octets).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => HandoffError::Closed,
            _ => error.into(),
        })
    }

    fn read_number(&mut self) -> Result<usize, HandoffError> {
        let mut octets = [0; 4];
        self.read(&mut octets)?;
        Ok(u32::from_be_bytes(octets) as usize)
    }

    /// Descriptors ride on one octet, so that the receiver knows where to look for them.
    fn send_batch(&self, batch: &[BorrowedFd<'_>]) -> Result<(), HandoffError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(batch)) {
            return Err(HandoffError::Count);
        }
        let sent = sendmsg(&self.0, &[IoSlice::new(b"D")], &mut ancillary, SendFlags::NOSIGNAL);
        match sent.map_err(io::Error::from)? {
            1 => Ok(()),
            _ => Err(HandoffError::Count),
        }
    }

    fn receive_batch(&self, expected: usize, into: &mut Vec<OwnedFd>) -> Result<(), HandoffError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut octet = [0];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&self.0, &mut [IoSliceMut::new(&mut octet)], &mut ancillary, flags);
        let received = received.map_err(io::Error::from)?;
        if received.bytes == 0 {
            return Err(HandoffError::Closed);
        }
        let before = into.len();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                into.extend(descriptors);
            }
        }
        if into.len() - before != expected || received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(HandoffError::Count);
        }
        Ok(())
    }

    /// Hands listeners out.
    pub fn send_listeners(&mut self, listeners: &Listeners) -> Result<(), HandoffError> {
        let Listeners { explicit, captured, dns_udp, dns_tcp } = listeners;
        let manifest = Manifest {
            explicit: explicit.len(),
            captured: captured.len(),
            dns_udp: dns_udp.len(),
            dns_tcp: dns_tcp.len(),
        };
        let streams = [explicit, captured].into_iter().flatten().map(AsFd::as_fd);
        let datagrams = dns_udp.iter().map(AsFd::as_fd);
        let all: Vec<_> = streams.chain(datagrams).chain(dns_tcp.iter().map(AsFd::as_fd)).collect();
        self.send(&manifest, &all)
    }

    /// Takes listeners over.
    pub fn receive_listeners(&mut self) -> Result<Listeners, HandoffError> {
        let (manifest, descriptors) = self.receive::<Manifest>()?;
        let Manifest { explicit, captured, dns_udp, dns_tcp } = manifest;
        let total = [explicit, captured, dns_udp, dns_tcp].into_iter().try_fold(0_usize, usize::checked_add);
        if total != Some(descriptors.len()) {
            return Err(HandoffError::Count);
        }
        let mut descriptors = descriptors.into_iter();
        let mut streams = |count| descriptors.by_ref().take(count).map(TcpListener::from).collect();
        let (explicit, captured) = (streams(explicit), streams(captured));
        let dns_udp = descriptors.by_ref().take(dns_udp).map(UdpSocket::from).collect();
        let dns_tcp = descriptors.map(TcpListener::from).collect();
        Ok(Listeners { explicit, captured, dns_udp, dns_tcp })
    }
}

/// How many descriptors of each kind follow.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    explicit: usize,
    captured: usize,
    dns_udp: usize,
    dns_tcp: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_many_descriptors_arrive_in_order() {
        let (mut near, far) = Channel::pair().unwrap();
        let mut far = Channel(UnixStream::from(far));
        let sockets: Vec<UdpSocket> = (0..450).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        let sender = std::thread::spawn(move || {
            let descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
            near.send(&"first", &descriptors).unwrap();
            near.send(&vec![1, 2, 3], &[]).unwrap();
        });
        let (text, descriptors) = far.receive::<String>().unwrap();
        assert_eq!(text, "first");
        let received: Vec<u16> =
            descriptors.into_iter().map(|fd| UdpSocket::from(fd).local_addr().unwrap().port()).collect();
        assert_eq!(received, ports);
        assert_eq!(far.receive::<Vec<u8>>().unwrap().0, [1, 2, 3]);
        sender.join().unwrap();
        assert!(matches!(far.receive::<String>(), Err(HandoffError::Closed)));
    }

    #[test]
    fn a_message_of_another_kind_is_an_error() {
        let (mut near, far) = Channel::pair().unwrap();
        let mut far = Channel(UnixStream::from(far));
        near.send(&"text", &[]).unwrap();
        assert!(matches!(far.receive::<u32>(), Err(HandoffError::Message(_))));
    }
}
