-- A load for wrk in which each response must belong to a request that its
-- thread is waiting for: its id comes back in the body and in a field.
local threads = {}

function setup(thread)
  thread:set("id", #threads + 1)
  table.insert(threads, thread)
end

function init()
  sent, got, wrong = 0, 0, 0
  waiting = {}
end

function request()
  sent = sent + 1
  local key = id .. "-" .. sent
  waiting[key] = true
  return wrk.format("GET", "/id/" .. key, { Host = "wrk.test", ["X-Id"] = key })
end

function response(status, headers, body)
  local key = body:match("^nginx /id/(%S+) ")
  if status == 200 and key and waiting[key] and headers["X-Id"] == key and body == "nginx /id/" .. key .. " " .. key then
    waiting[key] = nil
    got = got + 1
  else
    wrong = wrong + 1
  end
end

function done(summary)
  local sent, got, wrong = 0, 0, 0
  for _, t in ipairs(threads) do
    sent, got, wrong = sent + t:get("sent"), got + t:get("got"), wrong + t:get("wrong")
  end
  local e = summary.errors
  print(string.format("sent=%d got=%d wrong=%d requests=%d errors=%d", sent, got, wrong, summary.requests,
    e.connect + e.read + e.write + e.status + e.timeout))
end
