module failback/tests/independent

go 1.25.0

require (
	github.com/klauspost/compress v1.18.0
	github.com/zeebo/blake3 v0.2.4
)

require (
	github.com/klauspost/cpuid/v2 v2.2.10 // indirect
	golang.org/x/sys v0.30.0 // indirect
)
