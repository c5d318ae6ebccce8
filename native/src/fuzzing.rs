//! What must hold for any bytes at all. `native/fuzz` calls it with millions of inputs; a broken promise is a panic.

use crate::decode::{decode, Bounds, Decoded};
use crate::descriptor::Signal;
use crate::encode::{encode, encode_split, Batch, Wanted};
use crate::json::{json_to_protobuf, protobuf_to_json};
use crate::normalise::normalise_message;
use crate::wire::{Reader, MAX_DEPTH};

const BOUNDS: Bounds = Bounds {
    payload_bytes: 1 << 20,
    expansion_bytes: 1 << 28,
    depth: MAX_DEPTH,
};

/// The first byte chooses a signal and a limit, the rest is a payload.
fn choose(data: &[u8]) -> Option<(Signal, usize, &[u8])> {
    let (choice, payload) = data.split_first()?;
    let signal = [Signal::Traces, Signal::Metrics, Signal::Logs][usize::from(choice % 3)];
    Some((signal, usize::from(choice / 3) * 8 + 64, payload))
}

fn written(signal: Signal, batch: &Batch) -> Vec<u8> {
    let out = encode(signal, batch, Vec::new()).expect("what decode gives, encode takes");
    out.written().to_vec()
}

fn batch(decoded: Decoded) -> Batch {
    let Decoded {
        records,
        resources,
        scopes,
        ..
    } = decoded;
    Batch {
        records,
        resources,
        scopes,
    }
}

fn read_again(signal: Signal, payload: &[u8]) -> Batch {
    let decoded =
        decode(signal, &[payload], &[], BOUNDS).expect("what encode writes, decode reads");
    assert_eq!(decoded.unknown, 0);
    batch(decoded)
}

/// Protobuf bytes: the quick reader and the general one agree, and a batch survives being written and read.
pub fn protobuf(data: &[u8]) {
    let Some((signal, limit, payload)) = choose(data) else {
        return;
    };
    let decoded = decode(signal, &[payload], &[], BOUNDS);
    let general = normalise_message(signal.request(), Reader::new(payload), MAX_DEPTH);
    let (decoded, normal, unknown) = match (decoded, general) {
        (Ok(decoded), Ok((normal, unknown))) => (decoded, normal, unknown),
        (Err(refused), Ok(_)) => {
            assert!(
                refused.to_string().contains("limit"),
                "only the quick reader refuses: {refused}"
            );
            return;
        }
        (Err(_), Err(_)) => return,
        (Ok(_), Err(refused)) => panic!("only the quick reader accepts: {refused}"),
    };
    assert_eq!(decoded.unknown, unknown);
    let first = batch(decoded);
    let bytes = written(signal, &first);
    assert_eq!(
        bytes,
        written(signal, &read_again(signal, &normal)),
        "the readers differ"
    );
    let again = read_again(signal, &bytes);
    assert_eq!(again.records.num_rows(), first.records.num_rows());
    assert_eq!(
        bytes,
        written(signal, &again),
        "written, read and written again it differs"
    );
    for json in [false, true] {
        let Ok(parts) = encode_split(
            Wanted {
                signal,
                json,
                limit,
            },
            &first,
        ) else {
            continue;
        };
        assert!(parts.iter().all(|part| part.len() <= limit));
        let records = parts.iter().map(|part| {
            let protobuf = if json {
                json_to_protobuf(signal, part, MAX_DEPTH)
                    .expect("what is written as JSON is read")
                    .0
            } else {
                part.clone()
            };
            read_again(signal, &protobuf).records.num_rows()
        });
        assert_eq!(records.sum::<usize>(), first.records.num_rows());
    }
}

/// OTLP/JSON texts: what is accepted reads the same after being written as protobuf and as JSON.
pub fn json(data: &[u8]) {
    let Some((signal, _, text)) = choose(data) else {
        return;
    };
    let Ok((payload, _)) = json_to_protobuf(signal, text, MAX_DEPTH) else {
        return;
    };
    let Ok(decoded) = decode(signal, &[&payload], &[], BOUNDS) else {
        panic!("the bytes made of a text are not readable");
    };
    let bytes = written(signal, &batch(decoded));
    let text = protobuf_to_json(signal, &bytes).expect("what encode writes, JSON can say");
    let (payload, unknown) =
        json_to_protobuf(signal, &text, MAX_DEPTH).expect("what is written as JSON is read");
    assert_eq!(unknown, 0);
    let again = written(signal, &read_again(signal, &payload));
    // A NaN is any NaN in JSON.
    assert_eq!(again.len(), bytes.len());
}
