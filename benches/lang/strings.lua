local function main()
  local pieces = {}
  for i = 0, 299999 do
    pieces[#pieces + 1] = "item " .. i .. ";"
  end
  local text = table.concat(pieces)
  local parts = {}
  for part in (text .. ";"):gmatch("([^;]*);") do
    parts[#parts + 1] = part
  end
  local long = 0
  for _, part in ipairs(parts) do
    if #part > 10 then long = long + 1 end
  end
  print(#text .. " " .. #parts .. " " .. long)
end
main()
