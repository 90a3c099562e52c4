#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cde_gateway::gateway::fuzzing::observer(data));
