module netguests

go 1.24.0

require (
	github.com/stealthrocket/net v0.2.1
	golang.org/x/net v0.48.0
)

require golang.org/x/text v0.32.0 // indirect
