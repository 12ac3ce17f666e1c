//! Messages of Protocol Buffers, as far as requests need them.

/// The value of a field.
#[derive(Debug)]
pub(super) enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Field<'_> {
    pub(super) fn number(&self) -> Result<u64, String> {
        match self {
            Field::Number(number) => Ok(*number),
            Field::Bytes(_) => Err("a number is expected".to_owned()),
        }
    }

    pub(super) fn message(&self) -> Result<&[u8], String> {
        match self {
            Field::Bytes(bytes) => Ok(bytes),
            Field::Number(_) => Err("a message is expected".to_owned()),
        }
    }

    pub(super) fn text(&self) -> Result<String, String> {
        String::from_utf8(self.message()?.to_vec()).map_err(|error| error.to_string())
    }
}

/// The fields of a message of Protocol Buffers.
pub(super) fn fields(mut bytes: &[u8]) -> Result<Vec<(u64, Field<'_>)>, String> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Field::Number(varint(&mut bytes)?),
            1 => Field::Number(u64::from_le_bytes(take(&mut bytes, 8)?.try_into().unwrap())),
            2 => {
                let length = varint(&mut bytes)?;
                Field::Bytes(take(&mut bytes, length as usize)?)
            }
            other => return Err(format!("wire type {other}")),
        };
        fields.push((key >> 3, value));
    }
    Ok(fields)
}

/// Numbers one behind the other.
pub(super) fn packed(mut bytes: &[u8]) -> Result<Vec<u64>, String> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        numbers.push(varint(&mut bytes)?);
    }
    Ok(numbers)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err("a number without an end".to_owned())
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], String> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or("the message ends too early")?;
    *bytes = rest;
    Ok(taken)
}
