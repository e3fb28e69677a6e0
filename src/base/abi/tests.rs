use super::*;
use alloy_primitives::hex;

#[test]
fn selectors_are_those_of_the_specification() {
    assert_eq!(selector("createTable(string,string,string)"), hex!("56004b6a"));
    assert_eq!(selector("setValueByKey(string,string)"), hex!("bd291aef"));
    assert_eq!(selector("userTransfer(string,string,uint256)"), hex!("0b37617b"));
}

#[test]
fn a_call_is_encoded_as_solidity_does() {
    let data = Encoder::call(selector("openTable(string)")).string("t_test").finish();
    let expected = hex!(
        "f23f63c9"
        "0000000000000000000000000000000000000000000000000000000000000020"
        "0000000000000000000000000000000000000000000000000000000000000006"
        "745f746573740000000000000000000000000000000000000000000000000000"
    );
    assert_eq!(data.as_ref(), expected);
}

#[test]
fn error_data_is_what_solidity_reverts_with() {
    let data = error_string("low");
    assert_eq!(data[..4], hex!("08c379a0"));
    assert_eq!(Decoder::new(&data[4..]).string(), Ok("low"));
}

#[test]
fn every_type_survives_encoding_and_decoding() {
    let addresses = [Address::repeat_byte(1), Address::repeat_byte(2)];
    let texts = ["one", "", "a text of more than thirty-two bytes, to be padded"];
    let data = Encoder::new()
        .uint(U256::from(7))
        .int(-50_001)
        .bool(true)
        .address(addresses[0])
        .bytes32(B256::repeat_byte(3))
        .string("text")
        .bytes(&[0; 33])
        .addresses(&addresses)
        .strings(&texts)
        .finish();
    let mut decoder = Decoder::new(&data);
    assert_eq!(decoder.uint(), Ok(U256::from(7)));
    assert_eq!(decoder.uint(), Ok(int256(-50_001)));
    assert_eq!(decoder.bool(), Ok(true));
    assert_eq!(decoder.address(), Ok(addresses[0]));
    assert_eq!(decoder.bytes32(), Ok(B256::repeat_byte(3)));
    assert_eq!(decoder.string(), Ok("text"));
    assert_eq!(decoder.bytes(), Ok(&[0; 33][..]));
    assert_eq!(decoder.addresses(), Ok(addresses.to_vec()));
    assert_eq!(decoder.strings(), Ok(texts.to_vec()));
}

#[test]
fn malformed_data_is_an_error_and_never_read_beyond_its_end() {
    let data = Encoder::new().string("a text").finish();
    for len in 0..64 + 6 {
        assert_eq!(Decoder::new(&data[..len]).bytes(), Err(AbiError), "{len}");
    }
    assert_eq!(Decoder::new(&data[..64 + 6]).bytes(), Ok(&b"a text"[..]));
    for word in [[0xff; 32], U256::from(u64::MAX).to_be_bytes(), U256::from(33).to_be_bytes()] {
        let offset = word.to_vec();
        assert_eq!(Decoder::new(&offset).bytes(), Err(AbiError));
        assert_eq!(Decoder::new(&offset).addresses(), Err(AbiError));
        let length = [U256::from(32).to_be_bytes::<32>(), word].concat();
        assert_eq!(Decoder::new(&length).bytes(), Err(AbiError));
        assert_eq!(Decoder::new(&length).strings(), Err(AbiError));
    }
}

#[test]
fn the_lenient_decoder_gives_empty_values_from_the_first_malformed_one_on() {
    let mut empty = LenientDecoder::new(&[]);
    assert_eq!((empty.bytes(), empty.uint(), empty.address()), (&[][..], U256::ZERO, Address::ZERO));
    let data = [U256::from(5).to_be_bytes::<32>(), [0xff; 32], U256::from(6).to_be_bytes()].concat();
    let mut decoder = LenientDecoder::new(&data);
    assert_eq!(decoder.uint(), U256::from(5));
    assert_eq!(decoder.bytes(), b"");
    assert_eq!(decoder.uint(), U256::ZERO);
}

#[test]
fn signed_numbers_are_written_and_read_as_the_reference_node_does() {
    assert_eq!(int256_text(int256(-5)), "-5");
    assert_eq!(int256_text(U256::from(12345)), "12345");
    assert_eq!(int256_text(U256::MAX.wrapping_shr(1) + U256::ONE), (U256::MAX.wrapping_shr(1) + U256::ONE).to_string());
    assert_eq!(int256_text(U256::MAX), "-1");
    assert_eq!(parse_int256("-1"), Some(U256::MAX));
    assert_eq!(parse_int256("+7"), Some(U256::from(7)));
    assert_eq!(parse_int256("apple"), None);
    assert_eq!(parse_int256(""), None);
    assert_eq!(parse_uint256(" 5"), None);
    assert!(is_negative(int256(-1)) && !is_negative(int256(i64::MAX)));
}
